"""Replies that somebody else collected, with what was asked: a table to be judged.  Knows columns; judges nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from undersong.evaluation.rows import Row, flag_of, read_rows, text_of
from undersong.types import Prompt, Reply, Sample, UndersongError

FINISHES = ("stop", "length", "error")


def read_said(
    path: Path, samples: Mapping[str, Sample] | None = None, set_name: str = "harm", harmful: bool = True
) -> list[tuple[Prompt, Reply]]:
    """Prompts and their replies of a `.parquet` or `.jsonl` file or an `.eval` log, in file order.

    Every row needs `prompt_id` and `reply` (or an `error`).  `prompt`: the text of what was asked, which judges that
    see harm need; `answer` or `answers`: right replies, for judges of usefulness.  Both may come from `samples` by id
    instead.  `set` and `harmful` default to what is given here; `cluster` to the prompt's own id; modality and system
    to ''.  Raises UndersongError naming the row on a missing or wrong field, and on a (prompt_id, modality, system)
    that stands twice.
    """
    said: list[tuple[Prompt, Reply]] = []
    seen: dict[tuple[str, str, str], str] = {}
    for where, row in read_rows(path, "reply"):
        prompt = _prompt(row, where, samples, set_name, harmful)
        key = (prompt.sample.id, prompt.modality, prompt.system)
        if key in seen:
            named = "/".join(filter(None, key))
            raise UndersongError(f"{where} has the second reply to {named} (the first: {seen[key]}); keep one.")
        seen[key] = where
        said.append((prompt, _reply(row, prompt, where)))
    if not said:
        raise UndersongError(f"{path} holds no replies; collect some first.")
    return said


def _prompt(row: Row, where: str, samples: Mapping[str, Sample] | None, set_name: str, harmful: bool) -> Prompt:
    prompt_id = text_of(row, "prompt_id", "", where)
    if not prompt_id:
        raise UndersongError(f"{where} has no prompt_id; every row needs prompt_id and reply.")
    if samples is not None and prompt_id not in samples:
        raise UndersongError(
            f"{where} answers {prompt_id}, which the manifest does not hold; give the one it was asked from."
        )
    known = Sample(prompt_id) if samples is None else samples[prompt_id]
    sample = Sample(
        prompt_id,
        text=text_of(row, "prompt", "", where) or known.text,
        answer=text_of(row, "answer", "", where) or known.answer,
        answers=_answers(row, where) or known.answers,
        speaker=known.speaker,
        group=text_of(row, "cluster", "", where) or known.group,
    )
    kind = flag_of(row, "harmful", f"{where} ({prompt_id})")
    asked = text_of(row, "set", set_name, where), harmful if kind is None else kind
    return Prompt(sample, *asked, text_of(row, "modality", "", where), text_of(row, "system", "", where))


def _answers(row: Row, where: str) -> tuple[str, ...]:
    value = row.get("answers")
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(one, str) for one in value):
        raise UndersongError(f"{where} has answers {value!r}; give a list of strings.")
    return tuple(value)


def _reply(row: Row, prompt: Prompt, where: str) -> Reply:
    error = text_of(row, "error", "", where) or None
    finish = text_of(row, "finish", "", where) or ("stop" if error is None else "error")
    if finish not in FINISHES:
        raise UndersongError(f"{where} has finish {finish!r}; the words are {', '.join(FINISHES)}.")
    if row.get("reply") is None and finish != "error":
        raise UndersongError(f"{where} ({prompt.sample.id}) has no reply; give it, or the error that there was.")
    text = text_of(row, "reply", "", where)
    key = (prompt.sample.id, prompt.set, prompt.modality, prompt.system)
    return Reply(*key, text, 0, finish, error)
