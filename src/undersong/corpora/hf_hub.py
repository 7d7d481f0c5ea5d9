"""Streaming of data sets from the Hugging Face Hub as a `Manifest`, with audio left encoded.

Needs the `hf` extra (`datasets`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from undersong.corpora.manifest import Manifest
from undersong.corpora.tables import LocatedRow
from undersong.escaping import describe_error
from undersong.extras import install_hint
from undersong.types import UndersongError

OPTIONS = ("config", "split", "revision", "limit", "into")


def open_hub(ref: str, columns: Mapping[str, str] | None = None, known_names: bool = True) -> Manifest:
    """Open `hf:OWNER/NAME?config=…&split=…&revision=…&limit=…&into=FOLDER` as a Manifest.

    `config` and `split` (default `train`) are those of `load_dataset`; NAME may also be a local folder of a data set.
    `limit` takes only the first rows. `into` stores audio in files of that folder, named by content; without it the
    bytes of all clips stay in memory. Raises UndersongError if `datasets` is missing or cannot find the data set.
    """
    from undersong.corpora.manifest import manifest_from_rows

    name, _, query = ref.removeprefix("hf:").partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if not name or (unknown := sorted(set(options) - set(OPTIONS))):
        problem = f"option {unknown[0]!r}" if name else "name"
        raise UndersongError(f"{ref} has no usable {problem}; write hf:OWNER/NAME?{'=…&'.join(OPTIONS)}=….")
    limit = options.get("limit", "")
    if limit and not limit.isdigit():
        raise UndersongError(f"{ref} has the limit {limit!r}; write a number of rows.")
    audio_folder = Path(options["into"]) if options.get("into") else None
    rows = _stream(name, options, int(limit) if limit else None, audio_folder)
    return manifest_from_rows(rows, "hf", Path.cwd(), name.rsplit("/", 1)[-1], columns, known_names=known_names)


def store_audio(data: bytes, folder: Path) -> str:
    """Write an audio file named by its content, unless it exists; return its absolute path."""
    from undersong.store.atomic import write_atomic

    path = Path.cwd() / folder / f"{hashlib.sha256(data).hexdigest()[:32]}{audio_suffix(data)}"
    if not path.is_file():
        write_atomic(path, data)
    return str(path)


def audio_suffix(data: bytes) -> str:
    """File suffix for audio bytes, by their content; `.audio` if unknown. Trainers and players rely on it."""
    suffixes = {b"RIFF": ".wav", b"fLaC": ".flac", b"OggS": ".ogg", b"ID3": ".mp3", b"FORM": ".aiff", b".snd": ".au"}
    for magic, suffix in suffixes.items():
        if data.startswith(magic):
            return suffix
    return ".mp3" if data[:1] == b"\xff" and data[1:2] and data[1] & 0xE0 == 0xE0 else ".audio"


def _stream(
    name: str, options: Mapping[str, str], limit: int | None, audio_folder: Path | None
) -> Iterator[LocatedRow]:
    try:
        import datasets
    except ImportError as error:
        raise UndersongError(f"{name} needs the library `datasets`; {install_hint('hf')}.") from error

    split = options.get("split") or "train"
    try:
        stream = datasets.load_dataset(
            name, options.get("config") or None, split=split, revision=options.get("revision") or None, streaming=True
        )
        for column, feature in (stream.features or {}).items():
            if isinstance(feature, datasets.Audio):
                stream = stream.cast_column(column, datasets.Audio(decode=False))
        for number, row in enumerate(stream if limit is None else stream.take(limit), 1):
            yield f"Row {number} of {name} ({split})", _store_row_audio(row, audio_folder)
    except (OSError, ValueError) as error:  # unknown name, config or split, or no network
        first_line = describe_error(error)
        raise UndersongError(f"The data set {name} ({split}) cannot be read: {first_line}; check its name.") from error


def _store_row_audio(row: dict[str, Any], audio_folder: Path | None) -> dict[str, Any]:
    if audio_folder is None:
        return row
    return {name: _store_value(value, audio_folder) for name, value in row.items()}


def _store_value(value: Any, audio_folder: Path) -> Any:
    holds_bytes = isinstance(value, Mapping) and value.keys() <= {"bytes", "path"} and value.get("bytes") is not None
    return store_audio(value["bytes"], audio_folder) if holds_bytes else value
