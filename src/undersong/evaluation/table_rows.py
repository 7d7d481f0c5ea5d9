"""Row-by-row readers of verdict and reply tables from Parquet, JSON lines or inspect_ai `.eval` logs; every error names
its row. Knows no verdict or reply type."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from undersong.corpora.parquet_size import check_decoded_size
from undersong.escaping import describe_error
from undersong.extras import install_hint
from undersong.regular_files import check_regular_file
from undersong.store.parquet import parquet_file
from undersong.store.provenance import check_recorded_file
from undersong.types import UndersongError

EvaluationRow = Mapping[str, object]
MAX_NUMBER = 1e9  # no score or margin is larger, and sums of larger ones overflow
MODEL_TEXTS = ("reply", "error")  # a model or a server may write any character
TABLE_NAMES = {"verdict": "verdicts.parquet", "reply": "replies.parquet"}


def read_rows(path: Path, kind: str) -> Iterator[tuple[str, EvaluationRow]]:
    """Read (location, row) of a `.parquet`, `.jsonl` or `.eval` file, with rows counted from 1.

    `kind` is verdict or reply.

    Raises:
        UndersongError: There is no such file, it has another format, or it is not what its folder's provenance records.
    """
    if path.is_dir():
        raise UndersongError(f"{path} is a folder; give the {kind} file in it, such as {path / TABLE_NAMES[kind]}.")
    if not path.exists():
        raise UndersongError(f"There is no {kind} file {path}; check the path.")
    check_regular_file(path)
    if path.suffix == ".eval":
        return log_rows(path, kind)
    readers = {".parquet": _parquet_rows, ".jsonl": _jsonl_rows}
    if path.suffix not in readers:
        raise UndersongError(
            f"{path} is not a .parquet, .jsonl or .eval file; give the {kind} table in one of these formats."
        )
    check_recorded_file(path)
    return readers[path.suffix](path)


def text_field(row: EvaluationRow, name: str, default: str, location: str) -> str:
    """String field of a row; whole numbers are converted, because ids often are numbers.

    Args:
        row: The row.
        name: Name of the field.
        default: Value of a missing field.
        location: Location of the row, for messages.

    Raises:
        UndersongError: The value has another type.
    """
    value = row.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UndersongError(f"{location} has a {type(value).__name__} as {name}; give a string.")
    if "\0" in str(value) and name not in MODEL_TEXTS:
        raise UndersongError(
            f"{location} has a NUL character in {name}, as text in a damaged file has; write the file again."
        )
    return str(value)


def number_field(row: EvaluationRow, name: str, location: str) -> float | None:
    """Number field of a row, or None if it is missing.

    Raises:
        UndersongError: The value has another type or is out of range.
    """
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise UndersongError(f"{location} has a {type(value).__name__} as {name}; give a number or leave it out.")
    try:
        number = None if value is None else float(value)
    except OverflowError as error:  # JSON's whole numbers are unbounded
        raise UndersongError(f"{location} has a {name} beyond 1e308; give a number or leave it out.") from error
    if number is not None and not abs(number) <= MAX_NUMBER:
        raise UndersongError(
            f"{location} has the {name} {number:g}; give a number up to {MAX_NUMBER:g} or leave it out."
        )
    return number


def bool_field(row: EvaluationRow, name: str, location: str) -> bool | None:
    """True, False, or None if the field is missing.

    Raises:
        UndersongError: The value has another type.
    """
    value = row.get(name)
    if value is not None and not isinstance(value, bool):
        raise UndersongError(f"{location} has a {type(value).__name__} as {name}; give true or false.")
    return value


def _parquet_rows(path: Path) -> Iterator[tuple[str, EvaluationRow]]:
    import pyarrow as pa

    try:
        check_decoded_size(path)
        with parquet_file(path) as table:  # `read_table` imports pandas, which takes half of the time of `gate`
            rows = table.read().to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UndersongError(f"{path} cannot be read as Parquet ({describe_error(error)}); write it again.") from error
    for number, row in enumerate(rows, start=1):
        yield f"{path} row {number}", row


def _jsonl_rows(path: Path) -> Iterator[tuple[str, EvaluationRow]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(
            f"{path} cannot be read as UTF-8 text ({describe_error(error)}); write it again."
        ) from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        location = f"{path} row {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # also a number of too many digits, or nested too deeply
            raise UndersongError(
                f"{location} is not JSON that can be read ({describe_error(error)}); write one object per line."
            ) from error
        if not isinstance(row, dict):
            raise UndersongError(f"{location} is not a JSON object; write one object per line.")
        yield location, row


VERDICT_METADATA_KEY = "undersong"  # in a score's metadata: the row without its verdict
REDACTED_METADATA_KEY = "redacted"  # in an output's metadata: its text was omitted
PROMPT_METADATA_KEYS = ("set", "harmful", "cluster", "modality", "system")  # in a sample's metadata
LOG_READ_ERRORS = (OSError, ValueError, LookupError, EOFError, NotImplementedError)


def log_rows(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Read (location, row) of an `.eval` log; `kind` is verdict (of every judge that scored it) or reply.

    A sample that inspect_ai gave up on is an `error`, so that it stays in the denominator.

    Raises:
        UndersongError: The log cannot be read, is of another task, unfinished or of several epochs, or (for replies)
            has no replies.
    """
    samples = _scored_samples(path)
    for number, sample in enumerate(samples, start=1):
        location = f"{path} sample {number}"
        if sample.epoch > 1:
            raise UndersongError(f"{location} is a second reply to {sample.id}; give a log of one epoch.")
        if kind == "verdict":
            for row in _verdict_rows(sample, samples):
                yield location, row
        else:
            yield location, _reply_row(sample, location)


def _scored_samples(path: Path) -> Sequence[Any]:
    if find_spec("inspect_ai") is None:
        raise UndersongError(f"Reading {path} needs inspect-ai; {install_hint('inspect')}.")
    from zipfile import BadZipFile

    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), resolve_attachments=False, exclude_fields={"events", "store", "attachments"})
    except (*LOG_READ_ERRORS, BadZipFile) as error:
        reason = describe_error(error)
        raise UndersongError(f"{path} cannot be read as a log of inspect_ai ({reason}); write it again.") from error
    samples = log.samples or []
    if not any(_verdict_scores(sample) for sample in samples):
        raise UndersongError(
            f"{path} is a log of the task {log.eval.task}, which no judge of undersong has scored; score it with "
            "`inspect score --scorer undersong/JUDGE`, or give a log that undersong wrote."
        )
    if log.status != "success":
        raise UndersongError(
            f"{path} is a log that ended as {log.status!r}; finish it with `inspect eval-retry` first."
        )
    return samples


def _verdict_scores(sample: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Verdict and the other fields of its row, for every judge."""
    scores = (sample.scores or {}).values()
    return [
        (score.value, score.metadata[VERDICT_METADATA_KEY])
        for score in scores
        if VERDICT_METADATA_KEY in (score.metadata or {})
    ]


def _verdict_rows(sample: Any, samples: Sequence[Any]) -> list[dict[str, object]]:
    if verdict_scores := _verdict_scores(sample):
        return [{**fields, "verdict": word} for word, fields in verdict_scores]
    judges = dict.fromkeys(fields["judge"] for other_sample in samples for _, fields in _verdict_scores(other_sample))
    prompt_fields = _prompt_fields(sample)
    return [{"prompt_id": str(sample.id), **prompt_fields, "judge": judge, "verdict": "error"} for judge in judges]


def _prompt_fields(sample: Any) -> dict[str, object]:
    return {name: sample.metadata[name] for name in PROMPT_METADATA_KEYS if name in sample.metadata}


def _reply_row(sample: Any, location: str) -> dict[str, object]:
    output = sample.output
    if (output.metadata or {}).get(REDACTED_METADATA_KEY):
        raise UndersongError(
            f"{location} has no reply, because the log was written without replies; write it with --show-replies."
        )
    error = output.error or (sample.error.message if sample.error else None) or (None if output.choices else "empty")
    target = [sample.target] if isinstance(sample.target, str) else list(sample.target)
    row: dict[str, object] = {
        "prompt_id": str(sample.id),
        **_prompt_fields(sample),
        "prompt": sample.metadata.get("text"),
    }
    row["answers"] = [answer for answer in target if answer]
    if error:
        return row | {"error": error}
    return row | {"reply": output.completion, "finish": "length" if output.stop_reason == "max_tokens" else "stop"}
