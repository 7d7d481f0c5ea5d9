"""Writers for training sets: chat JSONL (LLaMA-Factory, ms-swift, Kimi-Audio) and Parquet folders for `datasets`.

`open_manifest` reads all of them back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.corpora.chat_formats import METADATA_COLUMN, PLACEHOLDER
from undersong.corpora.hf_hub import store_audio
from undersong.corpora.manifest import write_manifest
from undersong.corpora.rows import FIELDS, row_from_sample
from undersong.store.atomic import atomic_replacement, write_atomic
from undersong.store.parquet import parquet_writer
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class ChatExample:
    """One question and answer. `user_text` is the typed text, next to the clip if there is one."""

    system: str | None
    user_text: str | None
    answer: str


def write_chats(
    samples: Sequence[Sample], path: str | Path, chat_format: str = "messages", instruction: str = ""
) -> None:
    """Write training examples as JSONL in one chat format.

    Text next to a clip is the sample's label `instruction`, or else `instruction`. It is never the transcript, which
    would give the model in text what it has to hear. A text sample asks its text. A label `system` becomes the system
    text. All other fields are kept as JSON in one column that trainers ignore, so nothing is lost. Audio paths are
    absolute, because trainers resolve relative paths against their own folder. Audio bytes are written to files in
    `NAME-audio/`, named by content.

    Args:
        samples: The samples, each with an answer.
        path: The file to write.
        chat_format: `messages` (LLaMA-Factory, ms-swift), `sharegpt`, or `kimi` (fine-tuning of Kimi-Audio).
        instruction: Text next to clips that have no label `instruction`.

    Raises:
        UndersongError: A sample has no answer, or neither audio nor text; its text holds the placeholder; or the format
            cannot hold a part of it (Kimi-Audio's has no system text).
    """
    path = Path(path)
    folder = path.parent / f"{path.name.split('.')[0]}-audio"
    examples = [_chat_example(sample, instruction) for sample in samples]  # check all before any file is written
    for sample, example in zip(samples, examples):
        if chat_format == "kimi" and example.system:
            raise UndersongError(
                f"item {sample.id!r} has a system text, which Kimi-Audio's conversations do not hold; leave the label "
                "`system` out, or write messages."
            )
    lines = []
    for sample, example in zip(samples, examples):
        clip = None
        if sample.audio is not None:
            audio_path = store_audio(sample.audio, folder) if isinstance(sample.audio, bytes) else sample.audio
            clip = str(Path.cwd() / audio_path)
        row = {
            **CHAT_ROW_BUILDERS[chat_format](example, clip),
            "id": sample.id,
            METADATA_COLUMN: _metadata_json(sample, instruction),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines).encode())


def _messages_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_texts = [("system", example.system), ("user", _user_content(example, clip)), ("assistant", example.answer)]
    messages = [{"role": role, "content": text} for role, text in role_texts if text]
    return {"messages": messages, "audios": [] if clip is None else [clip]}


def _sharegpt_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_texts = [("system", example.system), ("human", _user_content(example, clip)), ("gpt", example.answer)]
    conversations = [{"from": role, "value": text} for role, text in role_texts if text]
    return {"conversations": conversations, "audios": [] if clip is None else [clip]}


def _kimi_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_parts = [("user", "text", example.user_text), ("user", "audio", clip), ("assistant", "text", example.answer)]
    conversation = [
        {"role": role, "message_type": kind, "content": content} for role, kind, content in role_parts if content
    ]
    return {"task_type": "understanding", "conversation": conversation}


CHAT_ROW_BUILDERS: dict[str, Callable[[ChatExample, str | None], dict[str, Any]]] = {
    "messages": _messages_row,
    "sharegpt": _sharegpt_row,
    "kimi": _kimi_row,
}


def _user_content(example: ChatExample, clip: str | None) -> str:
    return "\n".join(part for part in (PLACEHOLDER if clip is not None else "", example.user_text) if part)


def _chat_example(sample: Sample, instruction: str) -> ChatExample:
    labels, spoken = dict(sample.labels), sample.audio is not None
    sample_instruction, system = labels.get("instruction"), labels.get("system")
    user_text = (sample_instruction if sample_instruction is not None else instruction) if spoken else sample.text
    missing_answer = not (sample.answer or "").strip()
    if missing_answer or not (spoken or (user_text or "").strip()):
        missing_part = "answer to train on" if missing_answer else "audio and no text"
        raise UndersongError(f"item {sample.id!r} has no {missing_part}; leave it out or fill it in.")
    if any(PLACEHOLDER in (text or "") for text in (user_text, sample.answer, system)):
        raise UndersongError(f"item {sample.id!r} holds the placeholder {PLACEHOLDER} as a word; change its text.")
    return ChatExample(system, user_text, sample.answer or "")


def _metadata_json(sample: Sample, instruction: str) -> str:
    """All fields that the conversation does not hold, as one string, so that every row has the same type."""
    sample_instruction = dict(sample.labels).get("instruction")
    row = {
        name: value for name, value in row_from_sample(sample, Path("/nowhere")).items() if name not in ("id", "audio")
    }
    # An instruction shared by all items belongs to the export, not to the sample.
    fields = {
        name: value for name, value in {**row, "instruction": sample_instruction}.items() if value not in (None, [])
    }
    if sample.audio is not None and sample_instruction is None and instruction:
        fields["instruction"] = None
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)


SHARD_BYTES = 256 << 20  # bytes of audio in one Parquet file
ROW_GROUP_BYTES = 16 << 20  # and in one row group, which a streaming reader loads at once


def write_samples(samples: Sequence[Sample], path: str | Path, instruction: str = "") -> None:
    """Write samples in the format that the name of `path` implies.

    `*.messages.jsonl`, `*.sharegpt.jsonl` and `*.kimi.jsonl` are chats for trainers, `*.jsonl` and `*.parquet`
    manifests; any name without a suffix is a Parquet folder. Raises the errors of `write_chats`, `write_manifest` and
    `write_hub_folder`.
    """
    name = Path(path).name
    chat_format = next(
        (format_name for format_name in CHAT_ROW_BUILDERS if name.endswith(f".{format_name}.jsonl")), None
    )
    if chat_format is not None:
        write_chats(samples, path, chat_format, instruction)
    elif Path(path).suffix in (".jsonl", ".parquet"):
        write_manifest(samples, path)
    elif not Path(path).suffix:
        write_hub_folder(samples, path)
    else:
        chat_suffixes = ", ".join(f".{format_name}.jsonl" for format_name in CHAT_ROW_BUILDERS)
        raise UndersongError(f"{path} is no {chat_suffixes}, .jsonl, .parquet or folder; choose one of these names.")


def write_hub_folder(samples: Sequence[Sample], folder: str | Path, split: str = "train") -> None:
    """Write a folder that `datasets.load_dataset(folder)` reads unchanged, with audio bytes as an Audio feature.

    The files are `data/SPLIT-00000-of-00002.parquet`; labels are string columns. Audio is not decoded. An earlier
    export is replaced. Raises UndersongError for a folder with other content, an audio file that cannot be opened, or a
    label with the name of a column.
    """
    if not samples:
        raise UndersongError(f"{folder} would hold no items; keep some.")
    if Path(folder).exists() and not _is_export(Path(folder)):
        raise UndersongError(f"{folder} holds something else, which would be lost; name a new or an empty folder.")
    labels = sorted({name for sample in samples for name, _ in sample.labels})
    schema = _schema(labels, any(sample.audio is not None for sample in samples))
    with atomic_replacement(Path(folder)) as temporary:
        data = temporary / "data"
        data.mkdir(parents=True)
        files = list(_shards(samples, schema, data))
        for number, file in enumerate(files):
            file.rename(data / f"{split}-{number:05d}-of-{len(files):05d}.parquet")


def _is_export(folder: Path) -> bool:
    """True if a folder is empty or holds only files that this module writes."""
    if not folder.is_dir() or any(path.name != "data" for path in folder.iterdir()):
        return False
    return all(path.suffix == ".parquet" for path in (folder / "data").glob("*"))


def _schema(labels: list[str], has_audio: bool) -> pa.Schema:
    """Arrow types, with the features for `datasets` in the metadata."""
    import pyarrow as pa

    if clashing := sorted(set(labels) & set(FIELDS)):
        raise UndersongError(f"A label shares its name with the column {clashing[0]!r}; rename it.")
    text = {"dtype": "string", "_type": "Value"}
    types = {name: pa.string() for name in (*FIELDS, *labels)}
    types |= {"answers": pa.list_(pa.string()), "seconds": pa.float64()}
    features: dict[str, Any] = dict.fromkeys(types, text)
    features |= {"answers": {"feature": text, "_type": "Sequence"}, "seconds": {"dtype": "float64", "_type": "Value"}}
    if has_audio:
        types["audio"] = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        features["audio"] = {"_type": "Audio"}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema(list(types.items()), metadata=metadata)


def _shards(samples: Sequence[Sample], schema: pa.Schema, data: Path) -> Iterator[Path]:
    """Write files `0`, `1`, … of about SHARD_BYTES of audio each; yield each when it is complete."""
    import pyarrow as pa

    groups = _groups(samples)
    group = next(groups, None)
    for number in count():
        if group is None:
            return
        audio_bytes, file = 0, data / str(number)
        with parquet_writer(file, schema, compression="zstd", write_page_index=True) as writer:
            while group is not None and (audio_bytes == 0 or audio_bytes + group[1] <= SHARD_BYTES):
                writer.write_table(pa.Table.from_pylist(group[0], schema))
                audio_bytes += max(group[1], 1)
                group = next(groups, None)
        yield file


def _groups(samples: Sequence[Sample]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Yield (rows, bytes of audio in them), at most ROW_GROUP_BYTES or 1,000 rows at a time."""
    rows, audio_bytes = list[dict[str, Any]](), 0
    for sample in samples:
        row = row_from_sample(sample, Path("/nowhere"))
        if sample.audio is not None:
            data = _read_audio_bytes(sample)
            row["audio"] = {"bytes": data, "path": Path(sample.audio).name if isinstance(sample.audio, str) else None}
            audio_bytes += len(data)
        rows.append(row)
        if audio_bytes >= ROW_GROUP_BYTES or len(rows) == 1000:
            yield rows, audio_bytes
            rows, audio_bytes = [], 0
    if rows:
        yield rows, audio_bytes


def _read_audio_bytes(sample: Sample) -> bytes:
    from undersong.corpora.decode import UnreadableAudioError, file_bytes

    try:
        return file_bytes(sample)
    except ValueError as error:
        raise UnreadableAudioError(sample.id, str(error)) from error
