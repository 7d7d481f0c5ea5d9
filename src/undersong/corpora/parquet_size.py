"""The size of a Parquet file once it is decoded, bounded before its rows are read: a column that repeats one long value
takes a few kilobytes on the disk and gigabytes in memory.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

from undersong.store.parquet import parquet_file
from undersong.types import UndersongError

FREE_BYTES = 1 << 30  # decoded, which a file of any size may have
MAX_EXPANSION = 100  # decoded bytes for each byte of the file; text compresses to a twentieth at best
ROW_BYTES = 500  # that a row takes in memory beside its values
BATCH_ROWS = 256
BATCH_BYTES = 1 << 28  # of the values of one batch, unless a single row has more
VALUE_BYTES = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
I32_FIELD = 0x15  # of thrift's compact protocol: the next field, which is a 32-bit integer


def check_decoded_size(file: Path, content: bytes | None = None) -> None:
    """Check that the rows of a Parquet file are not far larger than the file.

    The metadata say how large all columns are but those with a dictionary, and settle it for most small files. Else
    the columns with a dictionary are decoded once, in batches that take little memory whatever the file holds.

    Args:
        file: The file.
        content: Its bytes, if they are in memory already.

    Raises:
        UndersongError: They are. Errors of Arrow for a damaged file pass.
    """
    if content is not None:
        _check(content, file)
    else:
        status = file.stat()
        _check_unchanged_file(file, (status.st_size, status.st_ino, status.st_mtime_ns))


@lru_cache(maxsize=64)
def _check_unchanged_file(file: Path, stamp: tuple[int, ...]) -> None:
    """Check a file once, although a command opens it several times; `stamp` tells one state of it from another."""
    _check(file, file)


def _check(source: Path | bytes, file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with io.BytesIO(source) if isinstance(source, bytes) else source.open("rb") as stream:
        size = stream.seek(0, io.SEEK_END)
        metadata = pq.read_metadata(stream)
        columns = [(column, _dictionary_bytes(column, stream)) for column in _columns(metadata)]
    limit, rows = max(FREE_BYTES, MAX_EXPANSION * size), metadata.num_rows
    smallest = rows * ROW_BYTES + sum(
        max(_fixed_bytes(column), column.total_uncompressed_size) for column, _ in columns
    )
    if smallest > limit:
        raise _size_error(file, size, rows, smallest)
    if smallest + sum(column.num_values * dictionary for column, dictionary in columns) <= limit:
        return
    decoded, names = smallest, sorted({column.path_in_schema for column, dictionary in columns if dictionary})
    reader = pa.BufferReader(source) if isinstance(source, bytes) else source
    with parquet_file(reader, buffer_size=1 << 20) as table:
        for batch in table.iter_batches(batch_size=_batch_rows(metadata, columns), columns=names):
            decoded += sum(map(_decoded_bytes, batch.columns))
            if decoded > limit:
                raise _size_error(file, size, rows, decoded)


def _size_error(file: Path, size: int, rows: int, decoded: int) -> UndersongError:
    return UndersongError(
        f"{file} decodes to more than {decoded / 1e9:,.3g} GB in {rows:,} rows, {decoded / size:,.0f} times its size, "
        "as a decompression bomb does; remove repeated rows or long repeated values, or write the rows as JSONL."
    )


def _columns(metadata: Any) -> Iterator[Any]:
    """Metadata of every column of every row group."""
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        yield from (group.column(index) for index in range(group.num_columns))


def _fixed_bytes(column: Any) -> int:
    return int(column.num_values * VALUE_BYTES.get(column.physical_type, 1))


def _dictionary_bytes(column: Any, stream: BinaryIO) -> int:
    """Bytes of a column's dictionary, unpacked, which none of its values can exceed; 0 without one.

    The metadata do not have it, but the header of its page does: field 1 is the kind of page, field 2 the size.
    """
    if not column.has_dictionary_page or column.physical_type in VALUE_BYTES:
        return 0
    stream.seek(column.dictionary_page_offset)
    header = iter(stream.read(12))
    try:
        fields = [_thrift_integer(header) for _ in range(2)]
    except (StopIteration, ValueError):  # no page that Arrow would read
        return int(column.total_uncompressed_size)
    return max(0, fields[1])


def _thrift_integer(header: Iterator[int]) -> int:
    """Read the next field: a byte for its type, and a zigzag integer of seven bits a byte."""
    if next(header) != I32_FIELD:
        raise ValueError("another field")
    value = shift = 0
    while True:
        byte = next(header)
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1)


def _batch_rows(metadata: Any, columns: list[tuple[Any, int]]) -> int:
    """Rows of a batch: fewer where a row may be long, as with audio in it, or with long values in a dictionary."""
    schema = metadata.schema
    row_bytes = sum(max(0, schema.column(index).length or 0) for index in range(metadata.num_columns))
    row_bytes += sum(column.total_uncompressed_size for column, _ in columns) // max(1, metadata.num_rows)
    by_name: dict[str, int] = {}
    for column, dictionary in columns:
        by_name[column.path_in_schema] = max(dictionary, by_name.get(column.path_in_schema, 0))
    return max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, row_bytes + sum(by_name.values()))))


def _decoded_bytes(array: Any) -> int:
    """Bytes of an Arrow array; a value of a dictionary, which the file may ask for, counts wherever it is used."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(array.type):
        if not len(array.dictionary):
            return 0
        try:
            lengths = pc.cast(pc.binary_length(array.dictionary), pa.int64())
        except pa.ArrowNotImplementedError:  # numbers, which are small
            return int(array.nbytes)
        return int(pc.sum(pc.take(lengths, array.indices)).as_py() or 0)
    if pa.types.is_struct(array.type):
        return sum(map(_decoded_bytes, array.flatten()))
    if pa.types.is_map(array.type):
        first, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_decoded_bytes(values.slice(first, end - first)) for values in (array.keys, array.items))
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return _decoded_bytes(array.flatten())
    return int(array.nbytes)
