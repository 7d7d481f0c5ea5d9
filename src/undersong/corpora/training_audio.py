"""Clips of the requests of a training file, for listening: read again from the rows, and only those that are named."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from undersong.corpora.registry import open_corpus
from undersong.corpora.training_file import READERS, TrainingFile
from undersong.corpora.training_rows import USER_ROLES

MESSAGE_COLUMNS = ("messages", "conversations", "conversation", "prompt")
PATH_KEYS = ("audio", "path", "url", "audio_url", "input_audio", "content")


def training_clips(
    data: TrainingFile, rows: Collection[int], columns: Mapping[str, str] | None = None
) -> dict[int, str | bytes]:
    """The first clip of each named row that is spoken and has one here: a path, or the bytes of a file.

    Args:
        data: The training file.
        rows: Rows to read.
        columns: Our field -> column, as the file was opened with.
    """
    wanted = {sample.row for sample in data.samples if sample.spoken} & set(rows)
    if not wanted:
        return {}
    if data.path is None or data.layout is None:  # a corpus, whose reader knows where its clips are
        samples = open_corpus(data.ref if data.path is None else str(data.path), columns).samples
        return {number: sample.audio for number, sample in enumerate(samples) if number in wanted and sample.audio}
    clips: dict[int, str | bytes] = {}
    for number, (_, row) in enumerate(READERS[data.table_format](data.path)):
        if number in wanted:
            values = (clip for value in _clip_values(row) if (clip := _resolve(value, data.path.parent)))
            if (clip := next(values, None)) is not None:
                clips[number] = clip
    return clips


def _clip_values(row: Mapping[str, Any]) -> Iterator[Any]:
    """What may be a clip of a row: its listed clips, then the audio parts of messages of a user."""
    for name in ("audio", "audios"):
        value = row.get(name)
        yield from value if isinstance(value, list) else (value,)
    for name in MESSAGE_COLUMNS:
        messages = row.get(name)
        for message in messages if isinstance(messages, list) else ():
            if not isinstance(message, Mapping) or str(message.get("role", "user")).lower() not in USER_ROLES:
                continue
            content = message.get("content")
            if message.get("message_type") == "audio":
                yield content
            for part in content if isinstance(content, list) else ():
                if isinstance(part, Mapping) and part.get("type") in ("audio", "input_audio", "audio_url"):
                    yield from (part[key] for key in PATH_KEYS if key in part)


def _resolve(value: Any, folder: Path) -> str | bytes | None:
    """A file that exists, beside the data or where the program runs, or bytes; None for anything else."""
    if isinstance(value, Mapping):
        values = (value.get("bytes"), value.get("path"), value.get("url"))
        return next((clip for item in values if (clip := _resolve(item, folder))), None)
    if isinstance(value, bytes):
        return value or None
    if not isinstance(value, str) or not value or "\0" in value:
        return None
    candidates = (folder / value, Path(value))
    return next((str(path) for path in candidates if len(value) < 4096 and path.is_file()), None)
