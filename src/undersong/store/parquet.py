"""Parquet tables with checksums: every page that undersong writes has one, and every page that it reads is checked
against the one it has.

Files of other programs and of earlier versions mostly have none, and are read without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def write_parquet(table: pa.Table, sink: Any, **options: Any) -> None:
    """Write a table to a path or an open file; `options` are those of `pyarrow.parquet.write_table`."""
    import pyarrow.parquet as pq

    pq.write_table(table, sink, write_page_checksum=True, **options)


def parquet_writer(sink: Any, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """Open a Parquet file for writing in parts; `options` are those of `pyarrow.parquet.ParquetWriter`."""
    import pyarrow.parquet as pq

    return pq.ParquetWriter(sink, schema, write_page_checksum=True, **options)


def read_parquet(source: Any, **options: Any) -> pa.Table:
    """Read a table from a path or a buffer; `options` are those of `pyarrow.parquet.read_table`.

    Raises OSError or pyarrow.ArrowException for a damaged file.
    """
    import pyarrow.parquet as pq

    return pq.read_table(source, page_checksum_verification=True, **options)


def parquet_file(source: Any, **options: Any) -> pq.ParquetFile:
    """Open a Parquet file for reading in parts; `options` are those of `pyarrow.parquet.ParquetFile`."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(source, page_checksum_verification=True, **options)
