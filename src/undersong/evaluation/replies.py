"""The reply table: writing it (mode 0600, because it holds replies to harmful prompts), reading it, and reading reply
tables that other tools collected."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from undersong.evaluation.table_rows import EvaluationRow, bool_field, number_field, read_rows, text_field
from undersong.store.parquet import read_parquet, write_parquet
from undersong.types import FINISH_REASONS, Prompt, Reply, Sample, UndersongError

COLUMNS = ("prompt_id", "set", "modality", "system", "reply", "tokens", "finish", "error", "refusal_margin")
PROMPT_COLUMNS = ("harmful", "cluster", "prompt")  # of the prompts, in the tables that `evaluate` hands out


def write_replies(replies: Sequence[Reply], path: Path, prompts: Sequence[Prompt] | None = None) -> None:
    """Write replies as Parquet, with mode 0600.

    With their prompts (in any order), every row also says whether the prompt is harmful, which cluster it belongs to
    and its text, so that `judge` gives the interval that `evaluate` gives, and can show a judge the request.

    Raises:
        UndersongError: Prompts are given, and a prompt has no reply or a reply no prompt.
    """
    import pyarrow as pa

    kinds = [pa.string()] * 5 + [pa.int64(), pa.string(), pa.string(), pa.float64()]
    fields, rows = list(zip(COLUMNS, kinds)), [asdict(reply) for reply in replies]
    if prompts is not None:
        fields += zip(PROMPT_COLUMNS, (pa.bool_(), pa.string(), pa.string()))
        for row, (prompt, _) in zip(rows, join_prompts(prompts, replies), strict=True):
            row |= {"harmful": prompt.harmful, "cluster": prompt.sample.cluster, "prompt": prompt.sample.text}
    table = pa.Table.from_pylist(rows, schema=pa.schema(fields))
    descriptor = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(file.fileno(), 0o600)  # also if the file existed with another mode
        write_parquet(table, file)


def read_replies(path: Path) -> list[Reply]:
    """Read the replies of a table that `write_replies` wrote, with or without columns of their prompts."""
    import pyarrow.parquet as pq

    names = pq.read_schema(path).names  # tables of earlier versions have no margin
    return [Reply(**row) for row in read_parquet(path, columns=[c for c in COLUMNS if c in names]).to_pylist()]


def join_prompts(prompts: Sequence[Prompt], replies: Sequence[Reply]) -> list[tuple[Prompt, Reply]]:
    """Return each reply with its prompt, matched by `key`, in the order of the replies.

    Raises:
        UndersongError: A prompt has no reply, or a reply no prompt.
    """
    prompt_by_key = {prompt.key: prompt for prompt in prompts}
    if unmatched := prompt_by_key.keys() ^ {reply.key for reply in replies}:
        key_text = "/".join(min(unmatched))
        raise UndersongError(
            f"Prompts and replies differ in {key_text} ({len(unmatched)} such); generate replies to these very prompts."
        )
    return [(prompt_by_key[reply.key], reply) for reply in replies]


def read_finishes(path: Path) -> list[str]:
    """Read how each reply ended, without the replies."""
    return read_parquet(path, columns=["finish"]).column("finish").to_pylist()


def read_reply_table(
    path: Path, samples: Mapping[str, Sample] | None = None, set_name: str = "harm", harmful: bool = True
) -> list[tuple[Prompt, Reply]]:
    """Read prompts and their replies from a `.parquet` or `.jsonl` file or an `.eval` log, in file order.

    Every row needs `prompt_id` and `reply` (or an `error`). `prompt` is the text of the request, which judges that see
    harm need; `answer` or `answers` are correct replies, for utility judges. Both may come from `samples` by id
    instead. `cluster` defaults to the prompt's own id, modality and system to ''.

    Args:
        path: The file.
        samples: Samples by id.
        set_name: Default of `set`.
        harmful: Default of `harmful`.

    Raises:
        UndersongError: A field is missing or wrong, or a (prompt_id, modality, system) occurs twice; the message names
            the row.
    """
    prompts_and_replies: list[tuple[Prompt, Reply]] = []
    location_by_key: dict[tuple[str, str, str], str] = {}
    for location, row in read_rows(path, "reply"):
        prompt = _prompt_of_row(row, location, samples, set_name, harmful)
        key = (prompt.sample.id, prompt.modality, prompt.system)
        if key in location_by_key:
            key_text = "/".join(filter(None, key))
            raise UndersongError(
                f"{location} has the second reply to {key_text} (the first: {location_by_key[key]}); keep one."
            )
        location_by_key[key] = location
        prompts_and_replies.append((prompt, _reply_of_row(row, prompt, location)))
    if not prompts_and_replies:
        raise UndersongError(f"{path} holds no replies; collect some first.")
    return prompts_and_replies


def _prompt_of_row(
    row: EvaluationRow, location: str, samples: Mapping[str, Sample] | None, set_name: str, harmful: bool
) -> Prompt:
    prompt_id = text_field(row, "prompt_id", "", location)
    if not prompt_id:
        raise UndersongError(
            f"{location} has no prompt_id, only {', '.join(row) or 'no columns'}; every row needs prompt_id and "
            "reply, as in the replies.parquet that `undersong evaluate` writes."
        )
    if samples is not None and prompt_id not in samples:
        raise UndersongError(
            f"{location} answers {prompt_id}, which is not in the manifest; give the manifest of these prompts."
        )
    reference = Sample(prompt_id) if samples is None else samples[prompt_id]
    sample = Sample(
        prompt_id,
        text=text_field(row, "prompt", "", location) or reference.text,
        answer=text_field(row, "answer", "", location) or reference.answer,
        answers=_reference_answers(row, location) or reference.answers,
        speaker=reference.speaker,
        group=text_field(row, "cluster", "", location) or reference.group,
    )
    harmful_flag = bool_field(row, "harmful", f"{location} ({prompt_id})")
    set_and_harmful = text_field(row, "set", set_name, location), harmful if harmful_flag is None else harmful_flag
    return Prompt(
        sample, *set_and_harmful, text_field(row, "modality", "", location), text_field(row, "system", "", location)
    )


def _reference_answers(row: EvaluationRow, location: str) -> tuple[str, ...]:
    value = row.get("answers")
    if value is None:
        return ()
    if (
        not isinstance(value, Sequence)
        or isinstance(value, str)
        or not all(isinstance(answer, str) for answer in value)
    ):
        raise UndersongError(f"{location} has a {type(value).__name__} as answers; give a list of strings.")
    return tuple(value)


def _reply_of_row(row: EvaluationRow, prompt: Prompt, location: str) -> Reply:
    error = text_field(row, "error", "", location) or None
    finish = text_field(row, "finish", "", location) or ("" if error is None else "error")
    if finish and finish not in FINISH_REASONS:
        raise UndersongError(f"{location} has another finish; use one of {', '.join(FINISH_REASONS)}.")
    if row.get("reply") is None and finish != "error":
        raise UndersongError(f"{location} ({prompt.sample.id}) has no reply; add it, or the error that occurred.")
    text = text_field(row, "reply", "", location)
    return Reply(*prompt.key, text, 0, finish, error, number_field(row, "refusal_margin", location))
