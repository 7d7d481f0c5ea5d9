"""Vectors that are mapped from disk are those that are read, and memory does not hold them."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.encoders import embeddings
from undersong.encoders.embeddings import (
    QUARANTINE_FILE,
    drop_embeddings,
    embeddings_table,
    quarantine_table,
    read_embeddings,
)
from undersong.proximity.table import proximity_tables
from undersong.types import Embeddings, Quarantined, UndersongError


def made(n: int, dim: int, seed: int = 0) -> Embeddings:
    """Every ninth vector is a copy of the first; ids are not in the order of the rows."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(1.0, 1.0, (n, dim)).astype(np.float32)
    vectors[::9] = vectors[0]
    return Embeddings(tuple(f"p{i}" for i in rng.permutation(n)), vectors, np.arange(n))


def written(pool: Embeddings, folder: Path, cuts: list[int], group: int) -> Path:
    """Files that end at `cuts`, in row groups of `group` rows."""
    folder.mkdir()
    for number, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(pool.ids)])):
        rows = slice(start, stop)
        table = embeddings_table(pool.ids[rows], pool.vectors[rows], pool.frames[rows])
        pq.write_table(table, folder / f"embeddings-{number:05d}.parquet", row_group_size=group)
    return folder


@pytest.fixture
def mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """All vectors are mapped, however few, a hundred rows at a time."""
    monkeypatch.setattr(embeddings, "MAPPED_BYTES", 0)
    monkeypatch.setattr(embeddings, "STREAM_ROWS", 100)


@pytest.mark.usefixtures("mapped")
@pytest.mark.parametrize(("cuts", "group"), [([], 10**6), ([300, 300, 301, 905], 77)], ids=["one file", "anywhere"])
def test_mapped_vectors_are_those_that_are_read(tmp_path: Path, cuts: list[int], group: int) -> None:
    pool = made(1000, 5)
    pool.vectors[[3, 500, 999]] = np.array([[0], [np.nan], [np.inf]], np.float32)
    folder, scratch = written(pool, tmp_path / "pool", cuts, group), tmp_path / "scratch"
    pq.write_table(quarantine_table((Quarantined("q", "silent"),)), folder / QUARANTINE_FILE)
    whole, by_map = read_embeddings(folder), read_embeddings(folder, scratch)
    assert by_map.ids == whole.ids
    assert np.array_equal(by_map.vectors, whole.vectors)
    assert np.array_equal(by_map.frames, whole.frames)
    assert set(by_map.quarantined) == set(whole.quarantined)
    assert len(by_map.quarantined) == 4
    dropped = [Quarantined(whole.ids[i], "lost elsewhere") for i in (0, 7, 801)]
    fewer, fewer_mapped = drop_embeddings(whole, dropped), drop_embeddings(by_map, dropped, scratch)
    assert fewer_mapped.ids == fewer.ids
    assert np.array_equal(fewer_mapped.vectors, fewer.vectors)
    assert np.array_equal(fewer_mapped.frames, fewer.frames)
    assert fewer_mapped.quarantined[-3:] == fewer.quarantined[-3:]
    assert not list(scratch.iterdir())  # the files have no names, so no kill leaves one


@pytest.mark.usefixtures("mapped")
def test_what_cannot_be_read_is_refused_as_ever(tmp_path: Path) -> None:
    folder = written(made(20, 7), tmp_path / "pool", [], 10)
    written(made(20, 7), tmp_path / "again", [], 10)
    (tmp_path / "again" / "embeddings-00000.parquet").rename(folder / "embeddings-00001.parquet")
    with pytest.raises(UndersongError, match="more than once"):
        read_embeddings(folder, tmp_path)
    written(made(20, 5), tmp_path / "wide", [], 10)
    (tmp_path / "wide" / "embeddings-00000.parquet").rename(folder / "embeddings-00001.parquet")
    with pytest.raises(UndersongError, match="7 and 5 dimensions"):
        read_embeddings(folder, tmp_path)


def test_memory_does_not_hold_a_mapped_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading, leaving items out, and distances raw and centered; numbers are those of vectors in memory."""
    pool, rows = made(12_000, 768), 1024
    folder, size = written(pool, tmp_path / "pool", [], 2 * rows), pool.vectors.nbytes
    del pool
    harm = Embeddings(("h0", "h1"), np.random.default_rng(1).normal(size=(2, 768)).astype(np.float32), np.zeros(2))
    monkeypatch.setattr(embeddings, "MAPPED_BYTES", 2**20)
    monkeypatch.setattr(embeddings, "STREAM_ROWS", rows)

    def screened(scratch: Path | None) -> tuple[pa.Table, int]:
        tracemalloc.start()
        read = read_embeddings(folder, scratch)
        kept = drop_embeddings(read, [Quarantined(read.ids[5], "lost")], scratch)
        del read
        table = proximity_tables("a", kept, {"h": harm})
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return table, peak

    (in_memory, most), (by_map, peak) = screened(None), screened(tmp_path)
    assert by_map.equals(in_memory)  # to the last bit
    assert most > size
    assert peak < 0.75 * size
