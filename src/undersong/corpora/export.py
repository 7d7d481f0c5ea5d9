"""A kept set as what trainers read: LLaMA-Factory and ms-swift JSONL, and a Parquet folder for `datasets`.

Knows layouts; does not decode audio.  Whole or not at all; `open_manifest` reads all of it back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.corpora.forms.conversations import CHAT_ROW_BUILDERS, write_chats
from undersong.corpora.manifest import write_manifest
from undersong.corpora.rows import FIELDS, row_from_sample
from undersong.store import atomic_replacement
from undersong.types import Sample, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_BYTES = 256 << 20  # bytes of audio in one Parquet file
ROW_GROUP_BYTES = 16 << 20  # and in one row group: what a streaming reader takes at once


def write_samples(samples: Sequence[Sample], path: str | Path, instruction: str = "") -> None:
    """Write by the name: `*.messages.jsonl`, `*.sharegpt.jsonl` and `*.kimi.jsonl` for trainers, `*.jsonl` or
    `*.parquet` as manifest, else a Parquet folder.

    Errors: those of `write_chats`, `write_manifest` and `write_hub_folder`.
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


def dataset_info(path: str | Path) -> dict[str, Any]:
    """The entry of LLaMA-Factory's `dataset_info.json` for a file of `write_messages`, under the file's name."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    entry = {
        "file_name": str(Path.cwd() / path),
        "formatting": "sharegpt",
        "columns": {"messages": "messages", "audios": "audios"},
        "tags": {**tags, "system_tag": "system"},
    }
    return {Path(path).name.split(".")[0]: entry}


def write_hub_folder(samples: Sequence[Sample], folder: str | Path, split: str = "train") -> None:
    """A folder that `datasets.load_dataset(folder)` reads unchanged, audio as an Audio feature, its bytes inside.

    Files `data/SPLIT-00000-of-00002.parquet`; labels are string columns.  The audio is as it was, not decoded.
    A former export there is replaced.  UndersongError: a folder with anything else in it, an audio file that cannot be
    opened, a label that shares its name with a column.
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
    """Whether a folder is empty or holds nothing but what this module writes."""
    if not folder.is_dir() or any(path.name != "data" for path in folder.iterdir()):
        return False
    return all(path.suffix == ".parquet" for path in (folder / "data").glob("*"))


def _schema(labels: list[str], has_audio: bool) -> pa.Schema:
    """Arrow types, and in the metadata the features that `datasets` takes from there."""
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
    """Write files `0`, `1`, … of about SHARD bytes of audio each; yields every one when it is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups = _groups(samples)
    group = next(groups, None)
    for number in count():
        if group is None:
            return
        audio_bytes, file = 0, data / str(number)
        with pq.ParquetWriter(file, schema, compression="zstd", write_page_index=True) as writer:
            while group is not None and (audio_bytes == 0 or audio_bytes + group[1] <= SHARD_BYTES):
                writer.write_table(pa.Table.from_pylist(group[0], schema))
                audio_bytes += max(group[1], 1)
                group = next(groups, None)
        yield file


def _groups(samples: Sequence[Sample]) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """(rows, bytes of audio in them), at most GROUP bytes or 1,000 rows at a time."""
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
