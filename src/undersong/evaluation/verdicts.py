"""The verdict table: reading it tolerantly, writing it strictly, picking one judge, set, modality and system from it.

Knows DESIGN's columns and the key (prompt_id, modality, system, judge); does not know how a verdict came about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from undersong.evaluation.rows import flag_of, number_of, read_rows, text_of
from undersong.store import replacing
from undersong.types import VERDICTS, UndersongError, Verdict

REQUIRED = ("prompt_id", "judge", "verdict")
CHOICES = ("judge", "set", "modality", "system")
Unsaid = Callable[[str, str], bool]  # (set, where the row is) -> is the prompt of a row that does not say harmful?


def read_verdicts(path: Path, unsaid: Unsaid | None = None) -> list[Verdict]:
    """Verdicts of a `.parquet` or `.jsonl` file, or an `.eval` log that undersong's judges scored, in file order.

    Only `prompt_id`, `judge` and `verdict` are needed.  The others default to: set, modality and system '', harmful
    true (or as `unsaid` says), cluster the prompt's own id, no score.  Further columns are ignored.  Raises
    UndersongError, naming the row (from 1) or item, on a file that is missing, empty or unreadable, a missing or wrong
    field, and a repeated key.
    """
    verdicts = [verdict_of(row, where, unsaid) for where, row in read_rows(path, "verdict")]
    if not verdicts:
        raise UndersongError(f"{path} holds no verdicts; judge some replies first.")
    check_keys(verdicts, str(path))
    return verdicts


def write_verdicts(verdicts: Sequence[Verdict], path: Path) -> None:
    """Parquet with DESIGN's columns; written beside `path` and renamed, so a half-written file never has its name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not verdicts:
        raise UndersongError(f"There are no verdicts to write to {path}; judge some replies first.")
    for verdict in verdicts:
        _check_word(verdict.verdict, verdict.harmful, f"The verdict on {verdict.prompt_id}")
    check_keys(verdicts, str(path))
    kinds = {"harmful": pa.bool_(), "score": pa.float64()}
    names = ("prompt_id", "set", "harmful", "cluster", "modality", "system", "judge", "verdict", "score")
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in names])
    with replacing(path) as partial:
        pq.write_table(pa.Table.from_pylist([asdict(verdict) for verdict in verdicts], schema=schema), partial)


def select_verdicts(
    verdicts: Sequence[Verdict],
    *,
    judge: str | None = None,
    set: str | None = None,
    modality: str | None = None,
    system: str | None = None,
    where: str = "The verdict table",
) -> list[Verdict]:
    """Verdicts of one judge, set, modality and system.

    A name picks its value.  Where none is given, the rows the names leave must hold one value only.  Raises
    UndersongError that lists what `where` holds, if a named value is absent or an unnamed one is not unique.
    """
    chosen = list(verdicts)
    if not chosen:
        raise UndersongError(f"{where} holds no verdicts; judge some replies first.")
    for choice, value in (("judge", judge), ("set", set), ("modality", modality), ("system", system)):
        if value is None:
            continue
        kept = [verdict for verdict in chosen if getattr(verdict, choice) == value]
        if not kept:
            raise UndersongError(f"{where} has no {choice} {value!r} there; it has {_listed(chosen, choice)}.")
        chosen = kept
    open_choices = [choice for choice in CHOICES if len(_values(chosen, choice)) > 1]
    if open_choices:
        several = "; ".join(f"{choice}: {_listed(chosen, choice)}" for choice in open_choices)
        options = " and ".join(f"--{choice}" for choice in open_choices)
        raise UndersongError(f"{where} holds several values ({several}); name one with {options}.")
    return chosen


def _values(verdicts: Sequence[Verdict], choice: str) -> list[str]:
    return sorted({getattr(verdict, choice) for verdict in verdicts})


def _listed(verdicts: Sequence[Verdict], choice: str) -> str:
    return ", ".join(value or "'' (not given)" for value in _values(verdicts, choice)) or "no rows"


def verdict_of(row: Mapping[str, object], where: str, unsaid: Unsaid | None = None) -> Verdict:
    """The verdict in a row, which is at `where`."""
    missing = [name for name in REQUIRED if row.get(name) is None or row[name] == ""]
    if missing:
        raise UndersongError(f"{where} has no {' and no '.join(missing)}; every row needs {', '.join(REQUIRED)}.")
    prompt_id = text_of(row, "prompt_id", "", where)
    harmful, name = flag_of(row, "harmful", f"{where} ({prompt_id})"), text_of(row, "set", "", where)
    if harmful is None and unsaid is not None:
        harmful = unsaid(name, f"{where} ({prompt_id})")
    word = text_of(row, "verdict", "", where)
    _check_word(word, harmful, f"{where} ({prompt_id})")
    return Verdict(
        prompt_id=prompt_id,
        set=name,
        harmful=True if harmful is None else harmful,
        cluster=text_of(row, "cluster", prompt_id, where),
        modality=text_of(row, "modality", "", where),
        system=text_of(row, "system", "", where),
        judge=text_of(row, "judge", "", where),
        verdict=word,
        score=number_of(row, "score", where),
    )


def _check_word(word: str, harmful: bool | None, where: str) -> None:
    """A known word that fits the prompt's kind; `harmful` None: the file does not say."""
    if word not in VERDICTS:
        raise UndersongError(f"{where} has the unknown verdict {word!r}; the words are {', '.join(VERDICTS)}.")
    if word == "jailbreak" and harmful is False:
        raise UndersongError(f"{where} calls a reply to a benign prompt a jailbreak; say 'answer', or mark it harmful.")
    if word == "answer" and harmful is True:
        raise UndersongError(f"{where} says 'answer' for a harmful prompt; say 'jailbreak', or mark the prompt benign.")


def check_keys(verdicts: Sequence[Verdict], where: str) -> None:
    """Raises UndersongError where two verdicts have one key."""
    seen: dict[tuple[str, str, str, str], int] = {}
    for number, verdict in enumerate(verdicts, start=1):
        key = (verdict.prompt_id, verdict.modality, verdict.system, verdict.judge)
        if key in seen:
            named = f"prompt {key[0]}, modality {key[1]!r}, system {key[2]!r}, judge {key[3]}"
            raise UndersongError(
                f"{where} has two verdicts for one key ({named}: verdicts {seen[key]} and {number}); keep one."
            )
        seen[key] = number
