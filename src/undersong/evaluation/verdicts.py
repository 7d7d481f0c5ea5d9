"""The verdict table: lenient reading, strict writing, and selecting a judge, prompt set, modality and system prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from undersong.evaluation.table_rows import bool_field, number_field, read_rows, text_field
from undersong.store.atomic import atomic_replacement
from undersong.store.parquet import write_parquet
from undersong.types import FINISH_REASONS, VERDICTS, Reply, UndersongError, Verdict

VERDICT_FILE = "verdicts.parquet"
MAX_LISTED_FILES = 4  # in a message
REQUIRED_FIELDS = ("prompt_id", "judge", "verdict")
SELECTION_FIELDS = ("judge", "set", "modality", "system")
FIELD_LABELS = {"judge": "judge", "set": "prompt set", "modality": "modality", "system": "system"}
# (set, location of the row) -> default of a row without the column `harmful`
HarmfulDefault = Callable[[str, str], bool]


def read_verdicts(path: Path, harmful_default: HarmfulDefault | None = None) -> list[Verdict]:
    """Read verdicts in file order: of a `.parquet` or `.jsonl` file, the folder of `evaluate` or `judge`, or an `.eval`
    log that undersong's judges scored.

    Only `prompt_id`, `judge` and `verdict` are required. Defaults of the others: set, modality and system '', harmful
    true (or by `harmful_default`), cluster the prompt's own id, no score, and nothing known of how the reply ended
    (`finish`). Further columns are ignored.

    Raises:
        UndersongError: The file is missing, empty or unreadable, a field is missing or wrong, or a key is repeated; the
            message names the row (from 1).
    """
    path = verdict_file(path)
    verdicts = [verdict_of_row(row, location, harmful_default) for location, row in read_rows(path, "verdict")]
    if not verdicts:
        raise UndersongError(f"{path} holds no verdicts; judge some replies first.")
    check_unique_keys(verdicts, str(path))
    return verdicts


def verdict_file(path: Path) -> Path:
    """The verdict file that a path names: itself, or that of a folder.

    Raises:
        UndersongError: A folder holds none.
    """
    if not path.is_dir():
        return path
    if not (path / VERDICT_FILE).is_file():
        if files := sorted(map(str, (path / "verdicts").glob("*.parquet"))):  # of `audit-adapter` and `watch`
            listed = ", ".join(files[:MAX_LISTED_FILES]) + (" …" if len(files) > MAX_LISTED_FILES else "")
            raise UndersongError(f"{path} holds the verdicts of several models; give the file of one: {listed}.")
        raise UndersongError(
            f"{path} holds no {VERDICT_FILE}; give the folder that `undersong evaluate` or `judge` wrote."
        )
    return path / VERDICT_FILE


def write_verdicts(verdicts: Sequence[Verdict], path: Path) -> None:
    """Write verdicts as Parquet to a temporary file that is then renamed, so a partial file never has this name.

    Raises:
        UndersongError: There are no verdicts, one is invalid, or a key is repeated.
    """
    import pyarrow as pa

    if not verdicts:
        raise UndersongError(f"There are no verdicts to write to {path}; judge some replies first.")
    for verdict in verdicts:
        _check_verdict_word(verdict.verdict, verdict.harmful, f"The verdict on {verdict.prompt_id}")
    check_unique_keys(verdicts, str(path))
    column_types = {"harmful": pa.bool_(), "score": pa.float64(), "refusal_margin": pa.float64()}
    columns = (
        *("prompt_id", "set", "harmful", "cluster", "modality", "system", "judge", "verdict"),
        *("score", "refusal_margin"),
        *(("finish",) if any(verdict.finish for verdict in verdicts) else ()),
    )
    schema = pa.schema([(name, column_types.get(name, pa.string())) for name in columns])
    with atomic_replacement(path) as partial:
        write_parquet(pa.Table.from_pylist([asdict(verdict) for verdict in verdicts], schema=schema), partial)


def with_finishes(verdicts: Sequence[Verdict], replies: Sequence[Reply]) -> list[Verdict]:
    """Copy to each verdict how the reply that it is about ended."""
    finishes = {reply.key: reply.finish or None for reply in replies}
    return [replace(verdict, finish=finishes[verdict.key]) for verdict in verdicts]


def select_verdicts(
    verdicts: Sequence[Verdict],
    *,
    judge: str | None = None,
    set: str | None = None,
    modality: str | None = None,
    system: str | None = None,
    table_name: str = "The verdict table",
) -> list[Verdict]:
    """Select the verdicts of one judge, set, modality and system.

    A given name selects its value. If a name is None, the remaining rows must have a single value.

    Args:
        verdicts: The verdicts.
        judge: Judge to select.
        set: Prompt set to select.
        modality: Modality to select.
        system: System prompt to select.
        table_name: Name of the table in messages.

    Raises:
        UndersongError: A named value is absent, or an unnamed one is not unique; the message lists the values.
    """
    selected_verdicts = list(verdicts)
    if not selected_verdicts:
        raise UndersongError(f"{table_name} holds no verdicts; judge some replies first.")
    for field, value in (("judge", judge), ("set", set), ("modality", modality), ("system", system)):
        if value is None:
            continue
        matching = [verdict for verdict in selected_verdicts if getattr(verdict, field) == value]
        if not matching:
            raise UndersongError(
                f"{table_name} has no {FIELD_LABELS[field]} {value!r}; choose one of "
                f"{_list_values(selected_verdicts, field)}."
            )
        selected_verdicts = matching
    ambiguous_fields = [field for field in SELECTION_FIELDS if len(_distinct_values(selected_verdicts, field)) > 1]
    if ambiguous_fields:
        ambiguous_values = "; ".join(
            f"{FIELD_LABELS[field]}: {_list_values(selected_verdicts, field)}" for field in ambiguous_fields
        )
        options = " and ".join(f"--{FIELD_LABELS[field].replace(' ', '-')}" for field in ambiguous_fields)
        raise UndersongError(f"{table_name} holds several values ({ambiguous_values}); name one with {options}.")
    return selected_verdicts


def _distinct_values(verdicts: Sequence[Verdict], field: str) -> list[str]:
    return sorted({getattr(verdict, field) for verdict in verdicts})


def _list_values(verdicts: Sequence[Verdict], field: str) -> str:
    return ", ".join(value or "'' (not given)" for value in _distinct_values(verdicts, field)) or "no rows"


def verdict_of_row(row: Mapping[str, object], location: str, harmful_default: HarmfulDefault | None = None) -> Verdict:
    """Verdict of a row; `location` names the row in messages.

    Raises:
        UndersongError: A field is missing or wrong.
    """
    missing = [name for name in REQUIRED_FIELDS if row.get(name) is None or row[name] == ""]
    if missing:
        raise UndersongError(
            f"{location} has no {' and no '.join(missing)}; every row needs {', '.join(REQUIRED_FIELDS)}."
        )
    prompt_id = text_field(row, "prompt_id", "", location)
    harmful, set_name = bool_field(row, "harmful", f"{location} ({prompt_id})"), text_field(row, "set", "", location)
    if harmful is None and harmful_default is not None:
        harmful = harmful_default(set_name, f"{location} ({prompt_id})")
    word = text_field(row, "verdict", "", location)
    _check_verdict_word(word, harmful, f"{location} ({prompt_id})")
    return Verdict(
        prompt_id=prompt_id,
        set=set_name,
        harmful=True if harmful is None else harmful,
        cluster=text_field(row, "cluster", prompt_id, location),
        modality=text_field(row, "modality", "", location),
        system=text_field(row, "system", "", location),
        judge=text_field(row, "judge", "", location),
        verdict=word,
        score=number_field(row, "score", location),
        refusal_margin=number_field(row, "refusal_margin", location),
        finish=_known_finish(row.get("finish")),
    )


def _known_finish(value: object) -> str | None:
    """How a reply ended; None for the words of other tools, whose files may have such a column of their own."""
    return str(value) if value in FINISH_REASONS else None


def _check_verdict_word(word: str, harmful: bool | None, location: str) -> None:
    """Check that a verdict is known and fits the prompt's kind; `harmful` is None if the file does not say."""
    if word not in VERDICTS:
        raise UndersongError(f"{location} has the unknown verdict {word!r}; use one of {', '.join(VERDICTS)}.")
    if word == "jailbreak" and harmful is False:
        raise UndersongError(
            f"{location} calls a reply to a benign prompt a jailbreak; write 'answer', or mark the prompt harmful."
        )
    if word == "answer" and harmful is True:
        raise UndersongError(
            f"{location} says 'answer' for a harmful prompt; write 'jailbreak', or mark the prompt benign."
        )


def check_unique_keys(verdicts: Sequence[Verdict], table_name: str) -> None:
    """Check that no two verdicts have the same key.

    Raises:
        UndersongError: Two verdicts have the same key.
    """
    number_by_key: dict[tuple[str, str, str, str], int] = {}
    for number, verdict in enumerate(verdicts, start=1):
        key = (verdict.prompt_id, verdict.modality, verdict.system, verdict.judge)
        if key in number_by_key:
            key_text = f"prompt {key[0]}, modality {key[1]!r}, system {key[2]!r}, judge {key[3]}"
            raise UndersongError(
                f"{table_name} has two verdicts for one key ({key_text}: verdicts {number_by_key[key]} and {number}); "
                "keep one."
            )
        number_by_key[key] = number


@dataclass(frozen=True, slots=True)
class VerdictPairs:
    """Verdicts on two models' replies to the same prompts, paired by prompt id."""

    pairs: tuple[tuple[Verdict, Verdict], ...]  # (before, after) of the prompts that both have, in BEFORE's order
    only_before: tuple[Verdict, ...]  # sorted by prompt id
    only_after: tuple[Verdict, ...]

    @property
    def by_prompt(self) -> list[tuple[Verdict | None, Verdict | None, str]]:
        """(before, after, cluster) of every prompt in either table, sorted by id; None if a table lacks it."""
        rows: list[tuple[str, Verdict | None, Verdict | None, str]] = [
            *((before.prompt_id, before, after, shared_cluster(before, after)) for before, after in self.pairs),
            *((before.prompt_id, before, None, before.cluster) for before in self.only_before),
            *((after.prompt_id, None, after, after.cluster) for after in self.only_after),
        ]
        return [row[1:] for row in sorted(rows, key=lambda row: row[0])]

    @property
    def margins(self) -> list[tuple[float, float, str]]:
        """(before, after, cluster) of the refusal margins of every prompt that has one in both tables."""
        return [
            (before.refusal_margin, after.refusal_margin, shared_cluster(before, after))
            for before, after in sorted(self.pairs, key=lambda pair: pair[0].prompt_id)
            if before.refusal_margin is not None and after.refusal_margin is not None
        ]


def pair_verdicts(before: Iterable[Verdict], after: Iterable[Verdict]) -> VerdictPairs:
    """Pair two models' verdicts by prompt id, on one prompt set in one modality under one system prompt."""
    before_by_id, after_by_id = ({verdict.prompt_id: verdict for verdict in verdicts} for verdicts in (before, after))
    return VerdictPairs(
        tuple((verdict, after_by_id[key]) for key, verdict in before_by_id.items() if key in after_by_id),
        tuple(before_by_id[key] for key in sorted(before_by_id.keys() - after_by_id.keys())),
        tuple(after_by_id[key] for key in sorted(after_by_id.keys() - before_by_id.keys())),
    )


def shared_cluster(before: Verdict, after: Verdict) -> str:
    """Return the cluster that both tables give a prompt; a table without clusters follows the other.

    Raises:
        UndersongError: The tables put the prompt into different clusters.
    """
    if before.cluster == before.prompt_id:
        return after.cluster
    if after.cluster not in (before.cluster, after.prompt_id):
        raise UndersongError(
            f"Prompt {before.prompt_id} is in cluster {before.cluster} before and {after.cluster} after; give it one "
            "cluster."
        )
    return before.cluster
