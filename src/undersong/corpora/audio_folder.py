"""Readers for folders of audio files: with a transcript table, in LibriSpeech layout, or as Parquet shards.

Does not open audio.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from undersong.corpora.column_names import AUDIO_SUFFIXES
from undersong.corpora.tables import LocatedRow, csv_rows, json_rows, text_lines
from undersong.phrases import join_items
from undersong.types import UndersongError

FILE_COLUMNS = ("file", "file_name", "filename", "path", "audio")  # columns of a transcript file that may name audio
MAX_FILES_NAMED = 4
TRANSCRIPT_SUFFIXES = (".csv", ".tsv", ".jsonl")
LIBRISPEECH_SUFFIX = ".trans.txt"
SPLIT_FILE_NAME = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})+(?:-[0-9a-f]+)?\.parquet")  # as `datasets` names shards


def detect_folder_format(folder: Path) -> str:
    """Detect the layout of a folder: `folder`, `librispeech` or `parquet-folder`.

    A folder of audio files without a transcript file is a `folder` too. Raises UndersongError if the folder has none of
    the layouts, or several.
    """
    matches = {
        "folder": bool(transcript_files(folder)),
        "librispeech": any(name.endswith(LIBRISPEECH_SUFFIX) for name in _file_names(folder)),
        "parquet-folder": bool(_parquet_paths(folder)),
    }
    formats = [name for name, present in matches.items() if present]
    if len(formats) == 1:
        return formats[0]
    if not formats and any(Path(name).suffix.lower() in AUDIO_SUFFIXES for name in _file_names(folder)):
        return "folder"
    if formats:
        raise UndersongError(_ambiguous_folder(folder, formats))
    raise UndersongError(
        f"There is no manifest in {folder}: no corpus.parquet, no {', '.join(TRANSCRIPT_SUFFIXES)} with a column "
        f"`file`, no *{LIBRISPEECH_SUFFIX}, no *.parquet and no audio; add one."
    )


def _ambiguous_folder(folder: Path, formats: Sequence[str]) -> str:
    """What a folder of several layouts could be, and the files in it to name instead."""
    layouts: dict[str, tuple[str, list[Path]]] = {
        "folder": ("a folder of audio", transcript_files(folder)),
        "librispeech": ("LibriSpeech", []),
        "parquet-folder": ("Parquet files", _parquet_paths(folder)),
    }
    files = [str(file) for name in formats for file in layouts[name][1]]
    shown = f"{', '.join(files[:MAX_FILES_NAMED])}{', …' * (len(files) > MAX_FILES_NAMED)}"
    kinds = join_items([layouts[name][0] for name in formats], "or")
    return f"{folder} could be {kinds}; name the file in it that you mean ({shown}), or move the others elsewhere."


def transcript_rows(folder: Path) -> Iterator[LocatedRow]:
    """Rows of the folder's transcript file (.csv, .tsv or .jsonl with a column `file`), then audio files that it omits.

    The id of an item is its `id` column, or else the path of its file below the folder without the suffix.
    """
    files = transcript_files(folder)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UndersongError(f"{folder} needs one transcript file with a column `file`; it has {names}.")
    named_files: set[str] = set()
    for location, row in (row for file in files for row in _transcript_table(file)):
        column = next((name for name in FILE_COLUMNS if isinstance(row, dict) and row.get(name)), None)
        if column is None or not isinstance(row[column], str):
            raise UndersongError(f"{location} names no file; fill in the column `file`.")
        file = os.path.relpath(os.path.join(folder, row[column]), folder)
        named_files.add(file)
        other_columns = {name: value for name, value in row.items() if name != column}
        yield location, {"id": _stem(file), **other_columns, "audio": row[column]}
    for name in _file_names(folder):
        if Path(name).suffix.lower() in AUDIO_SUFFIXES and name not in named_files:
            yield f"{folder / name}", {"id": _stem(name), "audio": name}


def librispeech_rows(folder: Path) -> Iterator[LocatedRow]:
    """Rows of a LibriSpeech folder: `SPEAKER-CHAPTER-NUMBER TEXT` lines in `*.trans.txt`, with the audio next to them.

    The speaker is the first part of the id.
    """
    names = _file_names(folder)
    audio = {os.path.splitext(name)[0]: name for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES}
    for file in (name for name in names if name.endswith(LIBRISPEECH_SUFFIX)):
        for number, line in enumerate(text_lines(folder / file), 1):
            location = f"Line {number} of {folder / file}"
            if not line.strip():
                continue
            key, _, text = line.strip().partition(" ")
            parts = key.split("-")
            if len(parts) != 3 or not text.strip():
                raise UndersongError(f"{location} is not `SPEAKER-CHAPTER-NUMBER TEXT`; fix the line.")
            audio_stem = (Path(file).parent / key).as_posix()
            row = {"id": key, "text": text.strip(), "speaker": parts[0], "chapter": parts[1]}
            yield location, {**row, "audio": audio.get(audio_stem, f"{audio_stem}.flac")}


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, sorted by name. Raises UndersongError if they belong to several splits."""
    files = _parquet_paths(folder)
    splits = {split_match[1] if (split_match := SPLIT_FILE_NAME.fullmatch(file.name)) else "" for file in files}
    if len(splits) > 1:
        raise UndersongError(
            f"{folder} holds several splits ({', '.join(sorted(splits - {''}))}); name one file or folder."
        )
    if not files:
        raise UndersongError(f"There is no *.parquet in {folder}; check the path.")
    return files


def _parquet_paths(folder: Path) -> list[Path]:
    return [folder / name for name in _file_names(folder) if name.endswith(".parquet")]


def transcript_files(folder: Path) -> list[Path]:
    """Files directly in the folder, sorted by name, whose first row has a column that names audio."""
    out = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in TRANSCRIPT_SUFFIXES and file.is_file():
            _, row = next(_transcript_table(file), ("", {}))
            if isinstance(row, dict) and any(name in row for name in FILE_COLUMNS):
                out.append(file)
    return out


def _transcript_table(file: Path) -> Iterator[LocatedRow]:
    return json_rows(file) if file.suffix.lower() == ".jsonl" else csv_rows(file)


def _file_names(folder: Path) -> list[str]:
    """Relative paths of all regular files below the folder, sorted; links to folders are not followed."""
    out = []
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative_directory = Path(directory).relative_to(folder)
        out += [(relative_directory / name).as_posix() for name in files if (Path(directory) / name).is_file()]
    return sorted(out)


def _stem(file: str) -> str:
    return os.path.splitext(file)[0].replace(os.sep, "/")
