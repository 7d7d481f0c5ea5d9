"""`.eval` logs of inspect_ai as tables of verdicts or replies, row by row.  Knows what undersong's scorers leave there.

A score of theirs has the verdict as its value and the rest of the row in its metadata, under `MARK`; a sample of
undersong's sets says in its metadata what was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from undersong.types import UndersongError

MARK = "undersong"  # in a score's metadata: the row without its verdict
REDACTED = "redacted"  # in an output's metadata: its text was left out
ASKED = ("set", "harmful", "cluster", "modality", "system")  # in a sample's metadata
UNREADABLE = (OSError, ValueError, LookupError, EOFError, NotImplementedError)


def log_rows(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(where, row) of an `.eval` log; `kind`: verdict, of every judge that scored it, or reply.

    A sample that inspect_ai gave up on is an `error`, so that it stays in the denominator.  Errors: a log that cannot
    be read, of another task, unfinished, of several epochs, or (for replies) one they were left out of.
    """
    samples = _samples(path)
    for number, sample in enumerate(samples, start=1):
        where = f"{path} sample {number}"
        if sample.epoch > 1:
            raise UndersongError(f"{where} is a second reply to {sample.id}; give a log of one epoch.")
        if kind == "verdict":
            for row in _verdicts(sample, samples):
                yield where, row
        else:
            yield where, _reply(sample, where)


def _samples(path: Path) -> Sequence[Any]:
    if find_spec("inspect_ai") is None:
        raise UndersongError(f"Reading {path} needs inspect-ai; pip install 'undersong[inspect]'.")
    from zipfile import BadZipFile

    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), resolve_attachments=False, exclude_fields={"events", "store", "attachments"})
    except (*UNREADABLE, BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UndersongError(f"{path} cannot be read as a log of inspect_ai ({reason}); write it again.") from error
    samples = log.samples or []
    if not any(_marks(sample) for sample in samples):
        raise UndersongError(
            f"{path} is a log of the task {log.eval.task}, which no judge of undersong's scored; score it with "
            "`inspect score --scorer undersong/JUDGE`, or give a log of undersong's."
        )
    if log.status != "success":
        raise UndersongError(
            f"{path} is a log that ended as {log.status!r}; finish it with `inspect eval-retry` first."
        )
    return samples


def _marks(sample: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(verdict, the rest of its row) of every judge."""
    scores = (sample.scores or {}).values()
    return [(score.value, score.metadata[MARK]) for score in scores if MARK in (score.metadata or {})]


def _verdicts(sample: Any, samples: Sequence[Any]) -> list[dict[str, object]]:
    if marks := _marks(sample):
        return [{**rest, "verdict": word} for word, rest in marks]
    judges = dict.fromkeys(rest["judge"] for one in samples for _, rest in _marks(one))
    asked = _asked(sample)
    return [{"prompt_id": str(sample.id), **asked, "judge": judge, "verdict": "error"} for judge in judges]


def _asked(sample: Any) -> dict[str, object]:
    return {name: sample.metadata[name] for name in ASKED if name in sample.metadata}


def _reply(sample: Any, where: str) -> dict[str, object]:
    output = sample.output
    if (output.metadata or {}).get(REDACTED):
        raise UndersongError(
            f"{where} has no reply: it was left out when the log was written; write it with --show-replies."
        )
    failed = output.error or (sample.error.message if sample.error else None) or (None if output.choices else "empty")
    target = [sample.target] if isinstance(sample.target, str) else list(sample.target)
    row: dict[str, object] = {"prompt_id": str(sample.id), **_asked(sample), "prompt": sample.metadata.get("text")}
    row["answers"] = [answer for answer in target if answer]
    if failed:
        return row | {"error": failed}
    return row | {"reply": output.completion, "finish": "length" if output.stop_reason == "max_tokens" else "stop"}
