"""Folders of audio and what was said in it: a transcript file, LibriSpeech's `*.trans.txt`, or Parquet files.

Knows names and layouts; does not open audio.  A transcript without its file, and a file without a transcript, are
named: the first is an item whose audio cannot be opened later, the second is an item without text.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from undersong.corpora.forms.tables import Row, csv_rows, json_rows, text_lines
from undersong.types import UndersongError

AUDIO = frozenset([".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".m4a"])
FILE = ("file", "file_name", "filename", "path", "audio")  # how a transcript file calls the audio's name
TRANSCRIPTS = (".csv", ".tsv", ".jsonl")
LIBRISPEECH = ".trans.txt"
SPLIT = re.compile(r"(.+?)(?:-\d{5}-of-\d{5})+(?:-[0-9a-f]+)?\.parquet")  # as `datasets` names shards


def folder_form(folder: Path) -> str:
    """`folder`, `librispeech` or `parquet-folder`.  UndersongError for a folder that is none of them, or two.

    Audio that nothing was written down for is a `folder`, too: its sound can be screened.
    """
    forms = {
        "folder": bool(_transcript_files(folder)),
        "librispeech": any(name.endswith(LIBRISPEECH) for name in _names(folder)),
        "parquet-folder": bool(_parquet(folder)),
    }
    found = [name for name, there in forms.items() if there]
    if len(found) == 1:
        return found[0]
    if not found and any(Path(name).suffix.lower() in AUDIO for name in _names(folder)):
        return "folder"
    if found:
        raise UndersongError(f"{folder} could be {' or '.join(found)}; say which by the format.")
    raise UndersongError(
        f"There is no manifest in {folder}: no corpus.parquet, no {', '.join(TRANSCRIPTS)} with a column `file`, "
        f"no *{LIBRISPEECH}, no *.parquet and no audio; add one."
    )


def transcribed(folder: Path) -> Iterator[Row]:
    """Rows of the folder's transcript file (.csv, .tsv, .jsonl with a column `file`), if there is one, then the audio
    that it does not name.

    An item's id is its `id` column, else its file's path below the folder without the suffix.
    """
    files = _transcript_files(folder)
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise UndersongError(f"{folder} needs one transcript file with a column `file`; it has {names}.")
    named: set[str] = set()
    for place, row in (row for file in files for row in _rows(file)):
        column = next((name for name in FILE if isinstance(row, dict) and row.get(name)), None)
        if column is None or not isinstance(row[column], str):
            raise UndersongError(f"{place} names no file; fill in the column `file`.")
        file = os.path.relpath(os.path.join(folder, row[column]), folder)
        named.add(file)
        rest = {name: value for name, value in row.items() if name != column}
        yield place, {"id": _stem(file), **rest, "audio": row[column]}
    for name in _names(folder):
        if Path(name).suffix.lower() in AUDIO and name not in named:
            yield f"{folder / name}", {"id": _stem(name), "audio": name}


def librispeech(folder: Path) -> Iterator[Row]:
    """LibriSpeech: `SPEAKER-CHAPTER-NUMBER TEXT` in every `*.trans.txt`, the audio beside it; speaker by the id."""
    names = _names(folder)
    audio = {os.path.splitext(name)[0]: name for name in names if Path(name).suffix.lower() in AUDIO}
    for file in (name for name in names if name.endswith(LIBRISPEECH)):
        for number, line in enumerate(text_lines(folder / file), 1):
            place = f"Line {number} of {folder / file}"
            if not line.strip():
                continue
            key, _, text = line.strip().partition(" ")
            parts = key.split("-")
            if len(parts) != 3 or not text.strip():
                raise UndersongError(f"{place} is not `SPEAKER-CHAPTER-NUMBER TEXT`; mend the line.")
            beside = (Path(file).parent / key).as_posix()
            row = {"id": key, "text": text.strip(), "speaker": parts[0], "chapter": parts[1]}
            yield place, {**row, "audio": audio.get(beside, f"{beside}.flac")}


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files of a folder, by name.  UndersongError where there are several splits: one is one corpus."""
    files = _parquet(folder)
    splits = {found[1] if (found := SPLIT.fullmatch(file.name)) else "" for file in files}
    if len(splits) > 1:
        raise UndersongError(
            f"{folder} holds several splits ({', '.join(sorted(splits - {''}))}); name one file or folder."
        )
    if not files:
        raise UndersongError(f"There is no *.parquet in {folder}; check the path.")
    return files


def _parquet(folder: Path) -> list[Path]:
    return [folder / name for name in _names(folder) if name.endswith(".parquet")]


def _transcript_files(folder: Path) -> list[Path]:
    """Files right in the folder, by name, whose first row has a column that names audio."""
    out = []
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in TRANSCRIPTS and file.is_file():
            _, row = next(_rows(file), ("", {}))
            if isinstance(row, dict) and any(name in row for name in FILE):
                out.append(file)
    return out


def _rows(file: Path) -> Iterator[Row]:
    return json_rows(file) if file.suffix.lower() == ".jsonl" else csv_rows(file)


def _names(folder: Path) -> list[str]:
    """Paths of all regular files below the folder, relative to it, sorted; links to folders are not followed."""
    out = []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = Path(place).relative_to(folder)
        out += [(inside / name).as_posix() for name in files if (Path(place) / name).is_file()]
    return sorted(out)


def _stem(file: str) -> str:
    return os.path.splitext(file)[0].replace(os.sep, "/")
