"""Page checksums: written to every table, and verified where a table has them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import undersong
from undersong.store.parquet import parquet_file, parquet_writer, read_parquet, write_parquet

TABLE = pa.table({"word": ["refusal", "jailbreak"] * 50, "score": [0.5, 1.5] * 50})


def write_in_parts(table: pa.Table, path: Path) -> None:
    with parquet_writer(path, table.schema) as writer:
        writer.write_table(table)


def read_in_parts(path: Path) -> pa.Table:
    with parquet_file(path) as file:
        return file.read()


@pytest.mark.parametrize("write", [write_parquet, write_in_parts])
@pytest.mark.parametrize("read", [read_parquet, read_in_parts])
def test_a_changed_page_is_an_error(write: Callable[..., None], read: Callable[[Path], Any], tmp_path: Path) -> None:
    write(TABLE, path := tmp_path / "table.parquet")
    assert read(path) == TABLE
    content = path.read_bytes()
    assert content.count(b"jailbreak") >= 1
    path.write_bytes(content.replace(b"jailbreak", b"jailbroke", 1))  # in the dictionary, which decodes
    assert pq.read_table(path) != TABLE
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        read(path)


def test_a_table_without_checksums_is_read(tmp_path: Path) -> None:
    pq.write_table(TABLE, path := tmp_path / "table.parquet")
    assert read_parquet(path) == read_in_parts(path) == TABLE


@pytest.mark.parametrize("name", ["read_table", "write_table", "ParquetFile", "ParquetWriter"])
def test_every_parquet_file_is_written_and_read_in_one_place(name: str) -> None:
    source = Path(undersong.__file__).parent
    users = {
        str(file.relative_to(source))
        for file in source.rglob("*.py")
        if re.search(rf"\b(pq|parquet)\.{name}\(", file.read_text())
    }
    assert users == {os.path.join("store", "parquet.py")}
