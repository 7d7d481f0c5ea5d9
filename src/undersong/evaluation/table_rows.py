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

VERDICT_METADATA_KEY = "undersong"  # in a score's metadata: the row without its verdict
REDACTED_METADATA_KEY = "redacted"  # in an output's metadata: its text was left out
PROMPT_METADATA_KEYS = ("set", "harmful", "cluster", "modality", "system")  # in a sample's metadata
LOG_READ_ERRORS = (OSError, ValueError, LookupError, EOFError, NotImplementedError)


def log_rows(path: Path, kind: str) -> Iterator[tuple[str, Mapping[str, object]]]:
    """(where, row) of an `.eval` log; `kind`: verdict, of every judge that scored it, or reply.

    A sample that inspect_ai gave up on is an `error`, so that it stays in the denominator.  Errors: a log that cannot
    be read, of another task, unfinished, of several epochs, or (for replies) one they were left out of.
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
        raise UndersongError(f"Reading {path} needs inspect-ai; pip install 'undersong[inspect]'.")
    from zipfile import BadZipFile

    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), resolve_attachments=False, exclude_fields={"events", "store", "attachments"})
    except (*LOG_READ_ERRORS, BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UndersongError(f"{path} cannot be read as a log of inspect_ai ({reason}); write it again.") from error
    samples = log.samples or []
    if not any(_verdict_scores(sample) for sample in samples):
        raise UndersongError(
            f"{path} is a log of the task {log.eval.task}, which no judge of undersong's scored; score it with "
            "`inspect score --scorer undersong/JUDGE`, or give a log of undersong's."
        )
    if log.status != "success":
        raise UndersongError(
            f"{path} is a log that ended as {log.status!r}; finish it with `inspect eval-retry` first."
        )
    return samples


def _verdict_scores(sample: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """(verdict, the rest of its row) of every judge."""
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
            f"{location} has no reply: it was left out when the log was written; write it with --show-replies."
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
