"""What is known of each prompt and reply without the words of either: the comprehension table, which may be shown.

Counts of word errors and ranks; no repetition and no reply, which stay where only their owner reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from undersong.evaluation.comprehension.relevance import Relevance
from undersong.evaluation.comprehension.repetition import Repetition
from undersong.evaluation.usefulness.words import WordErrors


@dataclass(frozen=True, slots=True)
class Comprehended:
    """One prompt.  `repetition`: None of typed ones; `relevance`: None of refusals, and of what cannot be placed."""

    prompt_id: str
    set: str
    modality: str
    system: str
    repetition: Repetition | None
    relevance: Relevance | None


REPEATED = ("substitutions", "deletions", "insertions", "reference_words")
RANKED = {"rank": "int64", "requests": "int64", "percentile": "float64", "chance_top": "float64",
          "chance_about": "float64", "chance_percentile": "float64"}  # fmt: skip
KEYS = ("prompt_id", "set", "modality", "system")


def row_of(one: Comprehended) -> dict[str, object]:
    """A flat row, empty where something is not known."""
    errors = one.repetition and one.repetition.errors
    repeated = asdict(errors) if errors else dict.fromkeys(REPEATED)
    ranked = asdict(one.relevance) if one.relevance else dict.fromkeys(RANKED)
    outcome = one.repetition.outcome if one.repetition else None
    return {**{key: getattr(one, key) for key in KEYS}, "repetition": outcome, **repeated, **ranked}


def write_comprehension(found: Sequence[Comprehended], path: Path) -> None:
    """One Parquet row a prompt, in order, as `row_of` makes it; what is not known is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = dict.fromkeys((*KEYS, "repetition"), "string") | dict.fromkeys(REPEATED, "int64") | RANKED
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    pq.write_table(pa.Table.from_pylist([row_of(one) for one in found], schema=schema), path)


def read_comprehension(path: Path) -> list[Comprehended]:
    """What `write_comprehension` wrote."""
    import pyarrow.parquet as pq

    return [_comprehended(row) for row in pq.read_table(path).to_pylist()]


def _comprehended(row: dict[str, object]) -> Comprehended:
    errors = None if row["reference_words"] is None else WordErrors(*(row[key] for key in REPEATED))  # type: ignore[arg-type]
    repeated = None if row["repetition"] is None else Repetition(str(row["repetition"]), errors)
    relevance = None if row["rank"] is None else Relevance(*(row[key] for key in RANKED))  # type: ignore[arg-type]
    prompt_id, name, modality, system = (str(row[key]) for key in KEYS)
    return Comprehended(prompt_id, name, modality, system, repeated, relevance)
