"""Which axis a model hears: against written-out bootstrap draws, and on pools made to have an answer or none."""

from __future__ import annotations

import numpy as np
import pytest
from made_tables import facts, table
from scipy.stats import spearmanr

from undersong.proximity.axis_agreement import axis_agreement_matrix, compare_internal_axis, pairwise_axis_agreement
from undersong.proximity.table import proximity_table
from undersong.statistics.bootstrap import cluster_bootstrap_weights
from undersong.types import Embeddings, UndersongError

N = 300


def made(share: float, n: int = N, seed: int = 0, ties: bool = False) -> tuple[dict, object]:
    """Two unrelated axes and an internal one that is `share` of the acoustic and the rest of the semantic."""
    rng = np.random.default_rng(seed)
    semantic, acoustic = rng.random((2, n))
    internal = share * acoustic + (1 - share) * semantic + 0.1 * rng.random(n)
    rounded = [np.round(v, 1) if ties else v for v in (semantic, acoustic, internal)]
    first, second, third = (table(v, name) for v, name in zip(rounded, ("semantic", "acoustic", "internal")))
    return {"semantic": first, "acoustic": second}, third


@pytest.mark.parametrize("ties", [False, True])
def test_intervals_are_of_written_out_draws(ties: bool) -> None:
    references, internal = made(0.6, 60, ties=ties)
    groups = [f"q{k // 3 if k < 30 else k // 2}" for k in range(60)]  # of different sizes: draws differ in length
    known = facts(internal.column("id").to_pylist(), group=groups)
    (pair,) = pairwise_axis_agreement({"a": references["acoustic"], "b": internal}, metadata=known, draws=200, seed=5)
    a, b = (t.column("distance").to_numpy() for t in (references["acoustic"], internal))
    spearmans, overlaps = [], []
    for weights in cluster_bootstrap_weights([f"value {name}" for name in groups], 200, 5):
        rows = np.repeat(np.arange(60), weights)
        spearmans.append(spearmanr(a[rows], b[rows]).statistic)
        k = len(rows) // 4
        chances = [
            [min(1, max(0, (k - (v[rows] < v[row]).sum()) / (v[rows] == v[row]).sum())) for row in rows] for v in (a, b)
        ]
        overlaps.append(float(np.prod(chances, axis=0).sum() / k))
    agreement = axis_agreement_matrix({"a": references["acoustic"], "b": internal})
    assert pair.spearman.value == pytest.approx(agreement.spearman[0, 1])
    if not ties:
        assert pair.overlap.value == pytest.approx(agreement.overlap_closest[0, 1])
    for found, drawn in ((pair.spearman, spearmans), (pair.overlap, overlaps)):
        assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
    assert (pair.n, pair.clusters, pair.chance) == (60, 25, 0.25)
    assert pair.cka is pair.cka_plain is None
    assert (min(pair.tied) > 0.9) == ties


def test_a_model_that_hears_one_axis_is_told_from_one_that_hears_both() -> None:
    clear = compare_internal_axis(*made(0.8), draws=300)
    assert clear.hears == {"spearman": "acoustic", "overlap": "acoustic"}
    assert clear.leads["spearman"]["acoustic"] == 1
    both = compare_internal_axis(*made(0.5), draws=300)
    assert both.hears["spearman"] is None
    assert sum(both.leads["spearman"].values()) == pytest.approx(1)
    assert [pair.b for pair in both.pairs] == ["internal", "internal"]
    only = compare_internal_axis({"acoustic": made(0.8)[0]["acoustic"]}, made(0.8)[1], draws=50)
    assert only.hears["spearman"] is None  # there is nothing that it leads


def test_the_same_axis_twice_leads_by_halves() -> None:
    references, internal = made(0.8)
    twice = {"one": references["acoustic"], "two": references["acoustic"]}
    found = compare_internal_axis(twice, internal, draws=50)
    assert found.leads["spearman"] == {"one": 0.5, "two": 0.5}
    assert found.hears["spearman"] is None


def test_copies_in_groups_make_no_evidence() -> None:
    """Every item eleven times over: with groups the interval is that of the items, without it is far too narrow."""
    references, internal = made(0.6, 40)
    pair = {"a": references["acoustic"], "b": internal}
    eleven = {axis: table(np.repeat(t.column("distance").to_numpy(), 11).tolist(), axis) for axis, t in pair.items()}
    ids = eleven["a"].column("id").to_pylist()
    known = facts(ids, group=np.repeat([f"q{k}" for k in range(40)], 11).tolist())

    def width(**given: object) -> float:
        (found,) = pairwise_axis_agreement(draws=300, **given)
        return found.spearman.high - found.spearman.low

    one, grouped, alone = width(tables=pair), width(tables=eleven, metadata=known), width(tables=eleven)
    assert grouped == pytest.approx(one, rel=0.25)
    assert alone < 0.5 * one


def test_vectors_add_cka() -> None:
    rng = np.random.default_rng(0)
    heard, said = rng.standard_normal((2, 200, 6))
    views = {
        "semantic": said,
        "acoustic": heard,
        "internal": heard @ rng.standard_normal((6, 9)) + 0.5 * rng.standard_normal((200, 9)),
    }
    ids = tuple(f"p{i:03d}" for i in range(200))
    vectors = {a: Embeddings(ids, v.astype(np.float32), np.zeros(200, np.int64)) for a, v in views.items()}
    tables = {
        axis: proximity_table(
            axis,
            "h",
            pool,
            Embeddings(("h0", "h1"), rng.standard_normal((2, pool.vectors.shape[1])).astype(np.float32), np.zeros(2)),
        )
        for axis, pool in vectors.items()
    }
    internal = tables.pop("internal")
    found = compare_internal_axis(tables, internal, vectors=vectors, draws=100)
    semantic, acoustic = found.pairs
    assert found.hears["cka"] == "acoustic"
    assert semantic.cka.low < 0.05 < 0.4 < acoustic.cka.low
    assert semantic.cka_plain > semantic.cka.value
    moved = compare_internal_axis(
        {axis: t.take(np.arange(200)[::-1]) for axis, t in tables.items()}, internal, vectors=vectors, draws=100
    )
    assert moved == found  # whatever order the rows stand in
    with pytest.raises(UndersongError, match="no vectors of axis internal"):
        compare_internal_axis(tables, internal, vectors={a: vectors[a] for a in tables})


def test_what_cannot_be_compared() -> None:
    _, internal = made(0.8)
    with pytest.raises(UndersongError, match="no reference axis of another name"):
        compare_internal_axis({"internal": internal}, internal)
    with pytest.raises(UndersongError, match="no reference axis"):
        compare_internal_axis({}, internal)
    with pytest.raises(UndersongError, match="0 items in common"):
        compare_internal_axis({"a": table([0.1, 0.2], ids=["x", "y"])}, internal)
    with pytest.raises(UndersongError, match="axis a or internal are equal"):
        compare_internal_axis({"a": table([0.5] * N)}, internal)
