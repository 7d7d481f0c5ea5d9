"""Row readers for JSONL, JSON, CSV/TSV and Parquet files, each row with its location for error messages.

Does not interpret rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undersong.corpora.parquet_size import check_decoded_size
from undersong.escaping import describe_error
from undersong.regular_files import check_regular_file
from undersong.store.parquet import parquet_file
from undersong.store.store import repair_hint
from undersong.types import UndersongError

# Longest first: the mark of UTF-32-LE begins with that of UTF-16-LE.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
DELIMITERS = {",": "csv", "\t": "tsv", ";": "csv with semicolons"}
MAX_LINE_BYTES = 1 << 26  # 64 MiB: a file with longer lines is not a text file

LocatedRow = tuple[str, Any]  # (location, row)


def text_lines(file: Path) -> Iterator[str]:
    """Lines of a text file, each with its line break, in UTF-8 or the encoding of the byte-order mark.

    Only a line feed ends a line, whatever separators are inside a string. Raises UndersongError with the line that is
    in another encoding. That encoding (Latin-1, Windows-1252, …) cannot be determined from the bytes, so it is not
    guessed.
    """
    with _open_binary(file) as raw, _read_errors(file):
        mark = raw.peek(4)[:4] if isinstance(raw, io.BufferedReader) else b""
        encoding = next((name for bom, name in BYTE_ORDER_MARKS if mark.startswith(bom)), "utf-8")
        if encoding in ("utf-16", "utf-32"):
            yield from _decode_wide_lines(raw.read(), encoding, file)
            return
        for number, line in enumerate(iter(lambda: raw.readline(MAX_LINE_BYTES), b""), 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise _encoding_error(f"Line {number} of {file}", f"byte 0x{line[error.start]:02x}") from error
            if "\0" in text:
                raise _encoding_error(
                    f"Line {number} of {file}", "it holds NUL characters, as UTF-16 without a mark does"
                )
            yield text


def json_rows(file: Path) -> Iterator[LocatedRow]:
    """One JSON value per line; blank lines are skipped. Errors name the line."""
    for number, line in enumerate(text_lines(file), 1):
        location = f"Line {number} of {file}"
        try:
            if text := line.strip():
                yield location, strict_json(text)
        except (ValueError, RecursionError) as error:
            raise UndersongError(
                f"{location} is not one JSON object ({describe_error(error)}); fix the line."
            ) from error


def json_list(file: Path, key: str | None = None) -> Iterator[LocatedRow]:
    """Items of one JSON list, or of the list under `key` (default: the only list) of one JSON object."""
    try:
        document = strict_json("".join(text_lines(file)))
    except (ValueError, RecursionError) as error:
        raise UndersongError(
            f"{file} is not JSON ({describe_error(error)}); fix it, or write one object per line."
        ) from error
    if isinstance(document, dict):
        lists = {name: value for name, value in document.items() if isinstance(value, list)}
        if key is None and len(lists) != 1:
            raise UndersongError(f"{file} holds {len(lists)} lists; keep one list of items.")
        document = lists.get(key) if key is not None else next(iter(lists.values()))
    if not isinstance(document, list):
        raise UndersongError(f"{file} holds no list of items{f' under {key!r}' if key else ''}; write one.")
    for number, row in enumerate(document, 1):
        yield f"Item {number} of {file}", row


def csv_rows(file: Path, delimiter: str | None = None) -> Iterator[LocatedRow]:
    """Rows under a header as dicts of strings; an empty field is absent. Errors name the line.

    The default delimiter is the one of tab, comma and semicolon that is most frequent in the header. A row with more or
    fewer fields than the header is an error, because the missing field is unknown.
    """
    lines = text_lines(file)
    header_line = next(lines, "")
    delimiter = delimiter or max(DELIMITERS, key=header_line.count)
    reader = csv.reader(_chain(header_line, lines), delimiter=delimiter, strict=True)
    start_line, header = 1, None
    while True:
        try:
            fields = next(reader, None)
        except csv.Error as error:
            location = f"Line {start_line} of {file}"
            raise UndersongError(
                f"{location} cannot be read as CSV ({describe_error(error)}); fix its quotes or line breaks."
            ) from error
        if fields is None:
            return
        location, start_line = f"Line {start_line} of {file}", reader.line_num + 1
        if header is None:
            header = [name.strip() for name in fields]
            if len(column_names := [name for name in header if name]) > len(set(column_names)):
                raise UndersongError(f"{location} names a column twice ({', '.join(header)}); use every name once.")
        elif fields and len(fields) != len(header):
            raise UndersongError(f"{location} has {len(fields)} fields and the header {len(header)}; fix the line.")
        elif fields:
            yield location, {name: value for name, value in zip(header, fields) if name and value != ""}


def parquet_rows(file: Path, required_column: str | None = None) -> Iterator[LocatedRow]:
    """Rows of one Parquet file, read in batches. `required_column` must exist."""
    import pyarrow as pa

    check_manifest_file(file)
    try:
        check_decoded_size(file)
        with parquet_file(file) as table:
            names = table.schema_arrow.names
            if "embedding" in names:
                raise UndersongError(f"{file} holds embeddings, not a manifest; name it where embeddings are taken.")
            if (required_column is not None and required_column not in names) or len(set(names)) < len(names):
                column = f"a column `{required_column}`, and " if required_column else ""
                raise UndersongError(f"{file} needs {column}every name once; it has {', '.join(names)}.")
            number = 0
            for batch in table.iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield f"Row {number} of {file}", row
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UndersongError(
            f"{file} cannot be read as Parquet ({describe_error(error)}); {repair_hint(file)}."
        ) from error


def strict_json(text: str) -> Any:
    """Parse JSON strictly: NaN, infinity and repeated fields raise ValueError."""
    return json.loads(text, object_pairs_hook=_unique_object, parse_constant=_reject_constant)


def _unique_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):  # json would keep the last without a warning
        raise ValueError("a field is repeated")
    return row


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def check_manifest_file(file: Path) -> None:
    """Raise UndersongError if a manifest is no regular file; of a relative path that does not exist, it says where it
    was looked for.
    """
    if not file.exists():
        place = "" if file.is_absolute() else f" in {Path.cwd()}"
        raise UndersongError(f"There is no manifest {file}{place}; check the path.")
    check_regular_file(file)


def _open_binary(file: Path) -> io.BufferedReader:
    check_manifest_file(file)
    try:
        return file.open("rb")
    except OSError as error:
        raise UndersongError(f"{file} cannot be opened ({error.strerror}); check its permissions.") from error


@contextmanager
def _read_errors(file: Path) -> Iterator[None]:
    """Name the file in an error of the disk or the network that it is on."""
    try:
        yield
    except OSError as error:
        raise UndersongError(f"{file} cannot be read ({error.strerror}); copy it to another disk.") from error


def _decode_wide_lines(data: bytes, encoding: str, file: Path) -> Iterator[str]:
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        number = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        reason = f"its byte-order mark says {encoding}, but it is not"
        raise _encoding_error(f"Line {number} of {file}", reason) from error
    yield from io.StringIO(text, newline="\n")


def _encoding_error(location: str, reason: str) -> UndersongError:
    return UndersongError(f"{location} is not UTF-8 ({reason}); save the file as UTF-8.")


def _chain(first_line: str, lines: Iterator[str]) -> Iterator[str]:
    yield first_line
    yield from lines
