"""Lists of samples to leave out, as the page saves them: one id a line."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

from undersong.regular_files import check_regular_file
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError


def read_marked_ids(file: str | Path) -> tuple[str, ...]:
    """Ids of a list, once each. Lines that begin with # are comments, and a line that begins with \" is JSON.

    Raises:
        UndersongError: The file cannot be read, or names no id.
    """
    if Path(file).exists():
        check_regular_file(file)
    try:
        text = Path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UndersongError(f"The list {file} cannot be read ({error.strerror}); check the path.") from None
    except UnicodeDecodeError:
        raise UndersongError(f"The list {file} is not UTF-8 text; write one id a line.") from None
    ids = [_parse_line(line.strip(), file, number) for number, line in enumerate(text.split("\n"), 1)]
    named = tuple(dict.fromkeys(id for id in ids if id is not None))
    if not named:
        raise UndersongError(f"The list {file} names no sample; mark some on the page, or write one id a line.")
    return named


def _parse_line(line: str, file: str | Path, number: int) -> str | None:
    if not line or line.startswith("#"):
        return None
    if not line.startswith('"'):
        return line
    try:
        value = json.loads(line)
    except ValueError:
        value = None
    if not isinstance(value, str):
        raise UndersongError(f'Line {number} of {file} begins with " and is not a JSON string; fix it.')
    return value


def check_known_ids(ids: Collection[str], known: Collection[str], file: str | Path, data: str) -> None:
    """Check that a list names only samples of the data.

    Args:
        ids: Ids of the list.
        known: Ids of the data.
        file: The list, for the message.
        data: The data, for the message.

    Raises:
        UndersongError: It names others.
    """
    present = set(known)
    unknown = [id for id in ids if id not in present]
    if unknown:
        hint = did_you_mean(unknown[0], list(present)[:5000]) or "; take the list of a page of this data."
        raise UndersongError(
            f"{len(unknown)} of {len(ids)} ids in {file} are not in {data}, the first {unknown[0]!r}{hint}"
        )
