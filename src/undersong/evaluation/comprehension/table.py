"""What is known of each prompt and reply without the words of either: the comprehension table, which may be shown.

Counts of word errors and ranks; no repetition and no reply, which stay where only their owner reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from undersong.evaluation.comprehension.relevance import Relevance
from undersong.evaluation.comprehension.repetition import Repetition
from undersong.evaluation.utility.wer import WordErrors


@dataclass(frozen=True, slots=True)
class PromptComprehension:
    """One prompt.  `repetition`: None of typed ones; `relevance`: None of refusals, and of what cannot be placed."""

    prompt_id: str
    set: str
    modality: str
    system: str
    repetition: Repetition | None
    relevance: Relevance | None


WORD_ERROR_COLUMNS = ("substitutions", "deletions", "insertions", "reference_words")
RELEVANCE_COLUMNS = {"rank": "int64", "requests": "int64", "percentile": "float64", "chance_top": "float64",
          "chance_about": "float64", "chance_percentile": "float64"}  # fmt: skip
KEY_COLUMNS = ("prompt_id", "set", "modality", "system")


def comprehension_row(record: PromptComprehension) -> dict[str, object]:
    """A flat row, empty where something is not known."""
    errors = record.repetition and record.repetition.errors
    word_error_cells = asdict(errors) if errors else dict.fromkeys(WORD_ERROR_COLUMNS)
    relevance_cells = asdict(record.relevance) if record.relevance else dict.fromkeys(RELEVANCE_COLUMNS)
    outcome = record.repetition.outcome if record.repetition else None
    return {
        **{key: getattr(record, key) for key in KEY_COLUMNS},
        "repetition": outcome,
        **word_error_cells,
        **relevance_cells,
    }


def write_comprehension(records: Sequence[PromptComprehension], path: Path) -> None:
    """One Parquet row a prompt, in order, as `row_of` makes it; what is not known is null."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = (
        dict.fromkeys((*KEY_COLUMNS, "repetition"), "string")
        | dict.fromkeys(WORD_ERROR_COLUMNS, "int64")
        | RELEVANCE_COLUMNS
    )
    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in kinds.items()])
    pq.write_table(pa.Table.from_pylist([comprehension_row(record) for record in records], schema=schema), path)


def read_comprehension(path: Path) -> list[PromptComprehension]:
    """What `write_comprehension` wrote."""
    import pyarrow.parquet as pq

    return [_comprehension_of_row(row) for row in pq.read_table(path).to_pylist()]


def _comprehension_of_row(row: dict[str, object]) -> PromptComprehension:
    errors = None if row["reference_words"] is None else WordErrors(*(row[key] for key in WORD_ERROR_COLUMNS))  # type: ignore[arg-type]
    repetition = None if row["repetition"] is None else Repetition(str(row["repetition"]), errors)
    relevance = None if row["rank"] is None else Relevance(*(row[key] for key in RELEVANCE_COLUMNS))  # type: ignore[arg-type]
    prompt_id, set_name, modality, system = (str(row[key]) for key in KEY_COLUMNS)
    return PromptComprehension(prompt_id, set_name, modality, system, repetition, relevance)
