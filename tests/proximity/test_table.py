"""The proximity table: DESIGN's columns, ranks that can be recomputed from them, and what must not be ranked."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics.pairwise import cosine_distances

from undersong.proximity.table import proximity_table, ranking_metadata, ranking_scores
from undersong.types import Embeddings, Quarantined, UndersongError

COLUMNS = "id axis harm_set distance distance_centered nearest_id second_distance knn_distance centroid_distance rank"


def embeddings(rows: np.ndarray, prefix: str, lost: int = 0) -> Embeddings:
    ids = tuple(f"{prefix}{i:03d}" for i in range(len(rows)))
    left_out = tuple(Quarantined(f"{prefix}lost{i}", "zero vector") for i in range(lost))
    return Embeddings(ids, np.asarray(rows, np.float32), np.zeros(len(rows), np.int64), left_out)


def sides(n: int = 60, m: int = 7, d: int = 5, seed: int = 0) -> tuple[Embeddings, Embeddings]:
    rng = np.random.default_rng(seed)
    both = 1 + rng.standard_normal((n + m, d))
    return embeddings(both[:n], "p"), embeddings(both[n:], "h")


def test_columns_and_values() -> None:
    pool, harm = sides()
    table = proximity_table("semantic", "advbench", pool, harm)
    assert table.column_names == COLUMNS.split()
    assert table.column("id").to_pylist() == list(pool.ids)
    assert table.column("axis").unique().to_pylist() == ["semantic"]
    assert table.column("harm_set").unique().to_pylist() == ["advbench"]
    assert table.schema.field("distance").type == pa.float32()
    raw = cosine_distances(pool.vectors, harm.vectors)
    mean = pool.vectors.astype(float).mean(axis=0)
    centered = cosine_distances(
        pool.vectors - mean, harm.vectors - mean
    )  # both sides less the pool's mean, not the stack's
    assert np.allclose(table.column("distance"), raw.min(axis=1), atol=1e-6)
    assert np.allclose(table.column("distance_centered"), centered.min(axis=1), atol=1e-5)
    assert table.column("nearest_id").to_pylist() == [harm.ids[i] for i in raw.argmin(axis=1)]
    assert np.allclose(table.column("second_distance"), np.sort(raw, axis=1)[:, 1], atol=1e-6)
    assert np.allclose(table.column("knn_distance"), np.sort(raw, axis=1)[:, :5].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("score", ["nearest", "knn:3", "centroid"])
@pytest.mark.parametrize("centre", [False, True])
def test_rank_follows_from_the_columns(score: str, centre: bool, tmp_path) -> None:
    table = proximity_table("a", "h", *sides(), score=score, center=centre)
    pq.write_table(table, tmp_path / "proximity.parquet")
    back = pq.read_table(tmp_path / "proximity.parquet")
    assert ranking_metadata(back) == {"score": score, "centered": centre, "neighbors": 3 if score == "knn:3" else 5}
    column = {"knn:3": "knn_distance", "centroid": "centroid_distance"}.get(
        score, "distance_centered" if centre else "distance"
    )
    assert np.array_equal(ranking_scores(back), back.column(column).to_numpy())
    ordered = sorted(zip(back.column(column).to_pylist(), back.column("id").to_pylist()))
    ranked = sorted(zip(back.column("rank").to_pylist(), back.column("id").to_pylist()))
    assert [id for _, id in ordered] == [id for _, id in ranked]
    assert back.column("rank").to_pylist() == [{i: r for r, i in ranked}[i] for i in back.column("id").to_pylist()]


def test_centring_changes_the_ranking_and_never_the_raw_distance() -> None:
    raw, centered = (proximity_table("a", "h", *sides(), center=centre) for centre in (False, True))
    for column in ("distance", "distance_centered"):
        assert raw.column(column).equals(centered.column(column))
    assert not raw.column("rank").equals(centered.column("rank"))


@given(st.integers(0, 1000), st.integers(2, 30), st.integers(1, 4))
def test_equal_items_tie_by_id_to_the_last_bit(seed: int, copies: int, kinds: int) -> None:
    """Copies lie at different places of a block, where a matrix product rounds differently."""
    rng = np.random.default_rng(seed)
    originals = rng.standard_normal((kinds + 1, 33))
    which = rng.permutation(np.repeat(np.arange(kinds + 1), copies))
    pool, harm = embeddings(originals[which], "p"), embeddings(rng.standard_normal((19, 33)), "h")
    rows = sorted(proximity_table("a", "h", pool, harm).to_pylist(), key=lambda row: row["rank"])
    for kind in range(kinds + 1):
        mine = [row for row in rows if which[int(row["id"][1:])] == kind]
        for column in ("distance", "distance_centered", "second_distance", "knn_distance", "centroid_distance"):
            assert len({row[column] for row in mine}) == 1
        assert [row["id"] for row in mine] == sorted(row["id"] for row in mine)


def test_of_equally_near_harm_items_the_lowest_id_is_named() -> None:
    pool, harm = sides(m=4)
    doubled = Embeddings(("z", "y", "x", "w"), harm.vectors[[0, 1, 0, 1]], harm.frames, ())
    assert set(proximity_table("a", "h", pool, doubled).column("nearest_id").to_pylist()) <= {"w", "x"}


def test_one_harm_item_has_no_second() -> None:
    table = proximity_table("a", "h", *sides(m=1))
    assert table.column("second_distance").null_count == len(table)
    assert ranking_metadata(table)["neighbors"] == 1


def test_one_pool_item_is_its_own_mean() -> None:
    table = proximity_table("a", "h", *sides(n=1))
    assert table.column("distance_centered").to_pylist() == [None]
    assert table.column("rank").to_pylist() == [1]
    with pytest.raises(UndersongError, match="p000 has no score"):
        proximity_table("a", "h", *sides(n=1), center=True)


@pytest.mark.parametrize("score", ["nearest", "knn:2", "centroid"])
def test_constant_scores_stop(score: str) -> None:
    pool, harm = (
        embeddings(np.eye(6)[:3], "p"),
        embeddings(np.eye(6)[3:], "h"),
    )  # all at distance 1, as in the published fault
    with pytest.raises(UndersongError, match=r"All 3 scores on axis acoustic are equal \(1\)"):
        proximity_table("acoustic", "h", pool, harm, score=score)


def test_quarantined_harm_stops() -> None:
    pool, harm = sides()
    bad = Embeddings(harm.ids, harm.vectors, harm.frames, (Quarantined("h9", "silent audio"),))
    with pytest.raises(UndersongError, match=r"Harm item h9 cannot be used on axis a \(silent audio"):
        proximity_table("a", "h", pool, bad)


@pytest.mark.parametrize(
    ("n", "lost", "allowed", "stops"),
    [(99, 1, 0.01, False), (98, 2, 0.01, True), (98, 2, 0.02, False), (1, 0, 0, False), (99, 1, 0, True)],
)
def test_quarantine_stops_beyond_its_limit(n: int, lost: int, allowed: float, stops: bool) -> None:
    pool, harm = sides(n=n)
    pool = Embeddings(
        pool.ids, pool.vectors, pool.frames, tuple(Quarantined(f"x{i}", "zero vector") for i in range(lost))
    )
    if stops:
        with pytest.raises(UndersongError, match=f"{lost} of {n + lost} pool items.*x0"):
            proximity_table("a", "h", pool, harm, max_quarantined=allowed)
    else:
        assert len(proximity_table("a", "h", pool, harm, max_quarantined=allowed)) == n


@pytest.mark.parametrize("score", ["knn", "knn:0", "knn:x", "knn:-1", "mean", "nearest:2", "centroid:1", ""])
def test_unknown_scores(score: str) -> None:
    with pytest.raises(UndersongError, match="Unknown score"):
        proximity_table("a", "h", *sides(), score=score)


def test_more_neighbours_than_harm_items() -> None:
    with pytest.raises(UndersongError, match="k = 8 neighbors of a harm set of 7"):
        proximity_table("a", "h", *sides(), score="knn:8")


def test_other_tables_do_not_say_how() -> None:
    with pytest.raises(UndersongError, match="does not say how"):
        ranking_metadata(pa.table({"id": ["a"]}))
