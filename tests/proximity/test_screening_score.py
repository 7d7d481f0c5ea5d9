"""The screening score: zero for harmless pools, above it for closer ones, and honest about how sure it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from made_tables import facts, table
from sklearn.metrics import roc_auc_score

from undersong.proximity.screening_score import compute_screening_score
from undersong.types import UndersongError


def speech(n: int, prefix: str, seed: int, closer: float = 0.0, axis: str = "semantic") -> pa.Table:
    values = 1 + 0.1 * np.random.default_rng(seed).standard_normal(n) - closer
    return table(values.tolist(), axis, [f"{prefix}{k:04d}" for k in range(n)])


def distances(made: pa.Table) -> np.ndarray:
    return made.column("distance").to_numpy()


def test_value_is_the_difference_of_two_areas() -> None:
    pool, harmless, heldout = speech(80, "p", 0, 0.1), speech(60, "b", 1), speech(50, "h", 2)
    found = compute_screening_score(pool, harmless, heldout, draws=50)

    def area(mine: pa.Table) -> float:
        is_mine = [1] * len(mine) + [0] * len(harmless)
        return roc_auc_score(is_mine, -np.concatenate([distances(mine), distances(harmless)]))

    assert found.value.value == pytest.approx(area(pool) - area(heldout))
    assert found.heldout.value == pytest.approx(area(heldout))
    assert (found.name, found.axis, found.score, found.n) == ("screening score", "semantic", "nearest", (80, 60, 50))
    for point in found.curve:
        at = np.quantile(distances(harmless), point.q, method="inverted_cdf")
        assert point.threshold == pytest.approx(at)
        assert point.share.value == pytest.approx((distances(pool) < at).mean())
        assert point.heldout_share.value == pytest.approx((distances(heldout) < at).mean())
        assert point.excess.value == pytest.approx(point.share.value - point.heldout_share.value)
        assert point.mass.value == pytest.approx(np.maximum(0, at - distances(pool)).mean(), abs=1e-6)
        assert point.share.low <= point.share.value <= point.share.high


def test_harmless_pools_are_covered_by_zero_and_closer_ones_are_not() -> None:
    values = [
        compute_screening_score(
            speech(100, "p", 3 * s), speech(100, "b", 3 * s + 1), speech(100, "h", 3 * s + 2), draws=200
        )
        for s in range(40)
    ]
    assert sum(v.value.low <= 0 <= v.value.high for v in values) >= 35
    assert sum(v.heldout.low <= 0.5 <= v.heldout.high for v in values) >= 35
    near = compute_screening_score(speech(100, "p", 0, 0.1), speech(100, "b", 1), speech(100, "h", 2), draws=200)
    assert near.value.low > 0.1
    far = compute_screening_score(speech(100, "p", 0, -0.1), speech(100, "b", 1), speech(100, "h", 2), draws=200)
    assert far.value.high < -0.1


def test_a_few_close_items_show_at_the_low_end_of_the_curve() -> None:
    pool = pa.concat_tables([speech(190, "p", 0), speech(10, "q", 3, 0.5)])
    found = compute_screening_score(pool, speech(400, "b", 1), speech(400, "h", 2), draws=200)
    assert found.value.low < 0.02
    assert found.curve[0].excess.low > 0.01
    assert found.curve[0].mass.value > 10 * found.curve[0].heldout_mass.value


def test_only_the_order_of_distances_counts_and_not_that_of_rows() -> None:
    sides = speech(70, "p", 0, 0.05), speech(60, "b", 1), speech(50, "h", 2)
    found = compute_screening_score(*sides, draws=50)
    bent = [table((distances(s).astype(float) ** 3).tolist(), ids=s.column("id").to_pylist()) for s in sides]
    assert compute_screening_score(*bent, draws=50).value == found.value
    turned = [s.take(np.arange(len(s))[::-1]) for s in sides]
    moved = compute_screening_score(*turned, draws=50)
    assert moved.value.low == pytest.approx(found.value.low)
    assert moved.curve[1].share.value == found.curve[1].share.value
    assert compute_screening_score(*sides, draws=50) == found
    assert compute_screening_score(*sides, draws=50, seed=1).value != found.value


def test_copies_in_groups_make_no_evidence() -> None:
    def copies(made: pa.Table, times: int) -> pa.Table:
        ids = [f"{id}.{c}" for id in made.column("id").to_pylist() for c in range(times)]
        return table(np.repeat(distances(made), times).tolist(), ids=ids)

    sides = speech(40, "p", 0), speech(40, "b", 1), speech(40, "h", 2)
    many = [copies(side, 8) for side in sides]
    known = [facts(m.column("id").to_pylist(), group=[i[:5] for i in m.column("id").to_pylist()]) for m in many]
    harmless_facts = pa.concat_tables(known[1:])

    def width(*tables: pa.Table, **given: object) -> float:
        value = compute_screening_score(*tables, draws=300, **given).value
        return value.high - value.low

    one, grouped, alone = width(*sides), width(*many, metadata=known[0], benign_metadata=harmless_facts), width(*many)
    assert grouped == pytest.approx(one, rel=0.2)
    assert alone < 0.5 * one
    halved = compute_screening_score(many[0], many[1], metadata=known[0], benign_metadata=harmless_facts, draws=20)
    assert (halved.n, halved.clusters) == ((320, 160, 160), (40, 20, 20))  # whole groups on either side


def test_the_three_sets_are_drawn_apart() -> None:
    pool, harmless = speech(50, "p", 0), speech(50, "b", 1)
    found = compute_screening_score(
        pool, harmless, table(distances(pool).tolist(), ids=[f"h{k:04d}" for k in range(50)]), draws=50
    )
    assert found.value.low < 0 == found.value.value < found.value.high


def test_one_cluster_has_no_interval() -> None:
    pool = speech(10, "p", 0)
    known = facts(pool.column("id").to_pylist(), group=["one"] * 10)
    found = compute_screening_score(pool, speech(20, "b", 1), metadata=known, draws=20)
    assert found.value.low is None
    assert dataclasses.asdict(found)["curve"][0]["share"]["high"] is None


def test_what_cannot_be_compared() -> None:
    pool, harmless = speech(10, "p", 0), speech(20, "b", 1)
    with pytest.raises(UndersongError, match="differ in axis"):
        compute_screening_score(pool, speech(20, "b", 1, axis="acoustic"))
    with pytest.raises(UndersongError, match="10 items are in two"):
        compute_screening_score(pool, harmless, pool)
    with pytest.raises(UndersongError, match="cannot be split"):
        compute_screening_score(pool, harmless.slice(0, 1))
    with pytest.raises(UndersongError, match="Quantiles lie between"):
        compute_screening_score(pool, harmless, quantiles=[5])
    centered = {"undersong": '{"score": "nearest", "centered": true, "neighbors": 5}'}
    with pytest.raises(UndersongError, match="centered on its own mean"):
        compute_screening_score(pool.replace_schema_metadata(centered), harmless.replace_schema_metadata(centered))
