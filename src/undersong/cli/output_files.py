"""Checks of the files that a command is to write, before it reads or writes anything."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from undersong.types import UndersongError

# What commands read in a folder, or beside a file, though the user does not name it.
COMPANION_FILES = ("verdicts.parquet", "results.json", "replies.parquet", "provenance.json")


def check_output_files(outputs: Mapping[str, Path | None], inputs: Mapping[str, Path | None]) -> None:
    """Check that no output is an input, and that no two outputs are one file.

    Args:
        outputs: Option -> the file that it names, if any.
        inputs: Option or argument -> the file or folder that it names, if any.

    Raises:
        UndersongError: An output would replace an input, or another output.
    """
    # A device, such as /dev/stdout, replaces nothing.
    written = {
        name: path for name, path in outputs.items() if path is not None and (path.is_file() or not path.exists())
    }
    for output, path in written.items():
        for name, source in inputs.items():
            if source is not None and any(_is_same_file(path, file) for file in _files_read(source)):
                raise UndersongError(f"{output} {path} would replace a file that {name} reads; name another file.")
    for (first, path), (second, other) in combinations(written.items(), 2):
        if _is_same_file(path, other):
            raise UndersongError(f"{first} {path} and {second} {other} are one file; name a file for each.")


def _files_read(source: Path) -> tuple[Path, ...]:
    if source.is_dir():
        return tuple(source / name for name in COMPANION_FILES)
    companions = [source.parent / name for name in COMPANION_FILES]
    if source.parent.name == "verdicts":  # of `audit-adapter` and `watch`
        companions.append(source.parent.parent / "replies" / source.name)
    return source, *(file for file in companions if file.is_file())


def _is_same_file(first: Path, second: Path) -> bool:
    return first.resolve() == second.resolve() or (first.exists() and second.exists() and first.samefile(second))
