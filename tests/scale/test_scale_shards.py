"""A streamed pool has the very numbers of the whole one, wherever its files and row groups end."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.encoders.embeddings import embeddings_table, read_embeddings
from undersong.proximity import proximity_table, ranking_metadata
from undersong.proximity.distances import BLOCK
from undersong.scale import proximity_shards
from undersong.scale.streamed_proximity import _rebatch_rows, _take_rows
from undersong.types import Embeddings, Quarantined, UndersongError


def embeddings(ids: list[str], vectors: np.ndarray) -> Embeddings:
    return Embeddings(tuple(ids), vectors.astype(np.float32), np.zeros(len(ids), np.int64))


def pool_with_ties(n: int, dim: int = 7, seed: int = 0) -> Embeddings:
    """Every ninth vector is a copy of the first, in all blocks; ids are not in the order of the rows."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(1.0, 1.0, (n, dim))
    vectors[::9] = vectors[0]
    return embeddings([f"p{i}" for i in rng.permutation(n)], vectors)


def harm_set(m: int = 11, dim: int = 7) -> Embeddings:
    vectors = np.random.default_rng(1).normal(1.0, 1.0, (m, dim))
    vectors[3] = vectors[7]
    return embeddings([f"h{i}" for i in range(m)][::-1], vectors)


def write(pool: Embeddings, folder: Path, cuts: list[int], group: int) -> Path:
    """Shards that end at `cuts`, in row groups of `group` rows."""
    folder.mkdir()
    for shard, (start, stop) in enumerate(zip([0, *cuts], [*cuts, len(pool.ids)])):
        rows = slice(start, stop)
        table = embeddings_table(pool.ids[rows], pool.vectors[rows], pool.frames[rows])
        pq.write_table(table, folder / f"embeddings-{shard:05d}.parquet", row_group_size=group)
    return folder


def read(shards: list[Path]) -> pa.Table:
    return pa.concat_tables([pq.read_table(shard) for shard in shards])


def assert_same(found: pa.Table, whole: pa.Table) -> None:
    assert found.schema == whole.schema
    for name in whole.column_names:
        assert found.column(name).to_pylist() == whole.column(name).to_pylist(), name
    assert ranking_metadata(found) == ranking_metadata(whole)


@pytest.mark.parametrize(
    ("score", "center"), [("nearest", False), ("nearest", True), ("knn:3", False), ("centroid", True)]
)
@pytest.mark.parametrize(
    ("cuts", "group"),
    [([], 10**6), ([BLOCK], BLOCK), ([100, 100, 101, BLOCK + 5], 333)],
    ids=["one file", "at blocks", "anywhere"],
)
def test_equals_the_table_of_the_whole(tmp_path: Path, score: str, center: bool, cuts: list[int], group: int) -> None:
    pool, harm = pool_with_ties(2 * BLOCK + 300), harm_set()
    shards = proximity_shards(
        "semantic", "harm", write(pool, tmp_path / "pool", cuts, group), harm, tmp_path / "out",
        score=score, center=center, shard=1000,
    )  # fmt: skip
    assert [shard.name for shard in shards] == [f"proximity-{i:05d}.parquet" for i in range(3)]
    assert_same(read(shards), proximity_table("semantic", "harm", pool, harm, score=score, center=center))


def test_ties_across_files_get_one_score_and_are_ranked_by_id(tmp_path: Path) -> None:
    pool = pool_with_ties(2 * BLOCK + 300)
    table = read(proximity_shards("a", "h", write(pool, tmp_path / "pool", [50], 70), harm_set(), tmp_path / "out"))
    tied = [row for row in table.to_pylist() if row["id"] in set(pool.ids[::9])]
    assert len(tied) > 200
    assert len({row["distance"] for row in tied}) == 1
    by_rank = sorted(tied, key=lambda row: row["rank"])
    assert [row["id"] for row in by_rank] == sorted(row["id"] for row in tied)


def test_two_processes_say_the_same(tmp_path: Path) -> None:
    pool, harm = pool_with_ties(2 * BLOCK + 300), harm_set()
    folder = write(pool, tmp_path / "pool", [700, 1500], 400)
    shards = proximity_shards("semantic", "harm", folder, harm, tmp_path / "out", processes=2)
    assert_same(read(shards), proximity_table("semantic", "harm", pool, harm))


def test_vectors_that_cannot_be_used_are_quarantined_as_in_the_whole(tmp_path: Path) -> None:
    pool = pool_with_ties(BLOCK + 50)
    pool.vectors[[3, BLOCK - 1, BLOCK + 2]] = np.array([[0], [np.nan], [np.inf]], np.float32)
    folder = write(pool, tmp_path / "pool", [900], 128)
    with pytest.raises(UndersongError, match=r"3 of 1074 pool items .*max_quarantined"):
        proximity_shards("a", "h", folder, harm_set(), tmp_path / "out", max_quarantined=0.001)
    assert not (tmp_path / "out").exists()
    whole = proximity_table("a", "h", read_embeddings(folder), harm_set())
    assert len(whole) == BLOCK + 47
    assert_same(read(proximity_shards("a", "h", folder, harm_set(), tmp_path / "out")), whole)


def test_memory_does_not_hold_the_pool(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    pool = embeddings([str(i) for i in range(12 * BLOCK)], rng.normal(size=(12 * BLOCK, 768)))
    folder, size = write(pool, tmp_path / "pool", [], 2 * BLOCK), pool.vectors.nbytes
    harm = embeddings(["h0", "h1"], rng.normal(size=(2, 768)))
    del pool
    tracemalloc.start()
    proximity_shards("a", "h", folder, harm, tmp_path / "out")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.75 * size


def test_what_cannot_be_scored_is_refused(tmp_path: Path) -> None:
    pool, harm = pool_with_ties(40), harm_set()
    folder = write(pool, tmp_path / "pool", [20], 10)
    with pytest.raises(UndersongError, match="Unknown score"):
        proximity_shards("a", "h", folder, harm, tmp_path / "out", score="closest")
    with pytest.raises(UndersongError, match="at least 1"):
        proximity_shards("a", "h", folder, harm, tmp_path / "out", processes=0)
    with pytest.raises(UndersongError, match="name a new folder"):
        proximity_shards("a", "h", folder, harm, folder)
    lost = Embeddings(harm.ids, harm.vectors, harm.frames, (Quarantined("h0", "zero vector"),))
    with pytest.raises(UndersongError, match="Harm item h0"):
        proximity_shards("a", "h", folder, lost, tmp_path / "out")
    write(pool_with_ties(20), tmp_path / "again", [10], 10)
    (tmp_path / "again" / "embeddings-00000.parquet").rename(folder / "embeddings-00002.parquet")
    with pytest.raises(UndersongError, match="more than once"):
        proximity_shards("a", "h", folder, harm, tmp_path / "out")
    (folder / "embeddings-00002.parquet").unlink()
    write(pool_with_ties(20, dim=5), folder / "wide", [], 10)
    (folder / "wide" / "embeddings-00000.parquet").rename(folder / "embeddings-00003.parquet")
    with pytest.raises(UndersongError, match="7 and 5 dimensions"):
        proximity_shards("a", "h", folder, harm, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@given(
    lengths=st.lists(st.integers(0, 9), min_size=1, max_size=8),
    rows=st.integers(1, 7),
    skip=st.integers(0, 10),
    count=st.integers(1, 40),
)
def test_rows_pass_whole_and_in_order(lengths: list[int], rows: int, skip: int, count: int) -> None:
    whole = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    parts = np.split(whole, np.cumsum(lengths)[:-1])
    blocks = [block.copy() for block in _rebatch_rows(_take_rows(iter(parts), skip, count), rows)]
    wanted = whole[skip : skip + count]
    assert [len(block) for block in blocks[:-1]] == [rows] * (len(blocks) - 1 if blocks else 0)
    assert np.array_equal(np.concatenate(blocks) if blocks else whole[:0], wanted)
