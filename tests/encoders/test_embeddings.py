"""Embeddings on disk: what goes out comes back, and what is not embeddings is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.encoders import embeddings as vectors
from undersong.encoders.embeddings import holds_embeddings, read_embeddings, write_embeddings
from undersong.types import Embeddings, Quarantined, UndersongError


def embeddings(n: int = 7, dim: int = 3) -> Embeddings:
    rng = np.random.default_rng(0)
    ids = tuple(f"i{k}" for k in range(n))
    rows = rng.standard_normal((n, dim)).astype(np.float32)
    return Embeddings(ids, rows, np.arange(n, dtype=np.int64), (Quarantined("x", "silent audio"),))


def parquet(path: Path, ids: list, rows: object, kind: pa.DataType | None = None) -> Path:
    kind = kind or pa.list_(pa.float32(), len(rows[0]))  # type: ignore[index]
    pq.write_table(pa.table({"id": ids, "embedding": pa.array(rows, kind)}), path)
    return path


@pytest.mark.parametrize("shard", [3, 100])
def test_there_and_back(tmp_path, monkeypatch, shard: int) -> None:
    monkeypatch.setattr(vectors, "ROWS_PER_FILE", shard)
    made = embeddings()
    write_embeddings(made, tmp_path)
    assert len(list(tmp_path.glob("embeddings-*.parquet"))) == -(-7 // shard)
    for path in (tmp_path, tmp_path / "embeddings-*.parquet"):
        back = read_embeddings(path)
        assert back.ids == made.ids
        assert np.array_equal(back.vectors, made.vectors)
        assert np.array_equal(back.frames, made.frames)
    assert read_embeddings(tmp_path).quarantined == made.quarantined
    assert holds_embeddings(tmp_path)
    kind = pq.read_schema(tmp_path / "embeddings-00000.parquet").field("embedding").type
    assert kind == pa.list_(pa.float32(), 3)


def test_nothing_embedded_is_still_readable(tmp_path) -> None:
    lost = (Quarantined("x", "silent audio"),)
    write_embeddings(Embeddings((), np.zeros((0, 0), np.float32), np.zeros(0, np.int64), lost), tmp_path)
    back = read_embeddings(tmp_path)
    assert back.ids == ()
    assert back.quarantined == lost


def test_unsound_rows_are_quarantined(tmp_path) -> None:
    rows = [[1.0, 2.0], None, [0.0, 0.0], [float("nan"), 1.0], [float("inf"), 1.0], [2.0, None], [3.0, 1.0]]
    made = read_embeddings(parquet(tmp_path / "e.parquet", list("abcdefg"), rows))
    assert made.ids == ("a", "g")
    assert made.vectors.tolist() == [[1, 2], [3, 1]]
    assert {item.id: item.reason for item in made.quarantined} == {
        "b": "no embedding",
        "c": "zero vector",
        "d": "NaN in vector",
        "e": "infinite value in vector",
        "f": "NaN in vector",
    }


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2)])
def test_other_lists_of_numbers(tmp_path, kind: pa.DataType) -> None:
    rows = [np.array(row, np.float16) if "half" in str(kind) else row for row in ([1.0, 2.0], [0.5, -1.0])]
    made = read_embeddings(parquet(tmp_path / "e.parquet", [1, 2], rows, kind))
    assert made.ids == ("1", "2")
    assert made.vectors.dtype == np.float32
    assert made.vectors.tolist() == [[1, 2], [0.5, -1]]


@pytest.mark.parametrize(
    ("ids", "rows", "kind", "message"),
    [
        (["a", "a"], [[1.0], [2.0]], None, "more than once"),
        (["a", None], [[1.0], [2.0]], None, "without id"),
        (["a\nb", "c"], [[1.0], [2.0]], None, "line breaks"),
        (["a", "b"], [[1.0], [2.0, 3.0]], pa.list_(pa.float32()), "1 and 2 dimensions"),
        (["a", "b"], [1.0, 2.0], pa.float32(), "fixed-size list"),
        (["a", "b"], [["x"], ["y"]], pa.list_(pa.string()), "fixed-size list"),
    ],
)
def test_what_is_refused(tmp_path, ids, rows, kind, message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        read_embeddings(parquet(tmp_path / "e.parquet", ids, rows, kind))


def test_shards_of_two_encoders_are_refused(tmp_path) -> None:
    parquet(tmp_path / "embeddings-0.parquet", ["a"], [[1.0, 2.0]])
    parquet(tmp_path / "embeddings-1.parquet", ["b"], [[1.0, 2.0, 3.0]])
    with pytest.raises(UndersongError, match="dimensions"):
        read_embeddings(tmp_path)


def test_missing_and_damaged_files(tmp_path) -> None:
    with pytest.raises(UndersongError, match="No embeddings at"):
        read_embeddings(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    for read in (read_embeddings, holds_embeddings):
        with pytest.raises(UndersongError, match="not a readable Parquet"):
            read(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"id": ["a"], "text": ["b"]}), tmp_path / "manifest.parquet")
    assert not holds_embeddings(tmp_path / "manifest.parquet")
    with pytest.raises(UndersongError, match="no column 'embedding'"):
        read_embeddings(tmp_path / "manifest.parquet")


def test_a_quarantine_beside_a_single_file_is_not_its_own(tmp_path) -> None:
    pq.write_table(vectors.quarantine_table((Quarantined("a", "zero vector"),)), tmp_path / "quarantine.parquet")
    made = read_embeddings(parquet(tmp_path / "kept.parquet", ["a", "b"], [[1.0], [2.0]]))
    assert made.ids == ("a", "b")
    assert made.quarantined == ()
