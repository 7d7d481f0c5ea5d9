"""Selections: who is in, who is not, and that the same question gives the same ids."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from undersong.proximity.axis_agreement import axis_agreement_matrix
from undersong.proximity.rules import parse_rule
from undersong.proximity.selection import select_by_kind, selection_from_json, selection_to_json
from undersong.proximity.selection_report import equal_selections, selection_overlaps
from undersong.types import UndersongError


def table(distances: list[float], axis: str = "semantic", ids: list[str] | None = None) -> pa.Table:
    """A proximity table with these distances, ranked by nearest."""
    ids = ids or [f"i{k:03d}" for k in range(len(distances))]
    order = sorted(range(len(ids)), key=lambda k: (distances[k], ids[k]))
    rank = [0] * len(ids)
    for place, k in enumerate(order):
        rank[k] = place + 1
    columns = {"id": ids, "axis": [axis] * len(ids), "distance": pa.array(distances, pa.float32()), "rank": rank}
    facts = json.dumps({"score": "nearest", "centered": False, "neighbors": 5})
    return pa.table(columns).replace_schema_metadata({"undersong": facts})


# Few values, so that ties are everywhere.
pools = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40).map(table)
shares = st.floats(0.01, 1.0)


@given(pools, shares)
def test_closest_lies_nowhere_beyond_the_rest(pool, share: float) -> None:
    distance = dict(zip(pool.column("id").to_pylist(), pool.column("distance").to_pylist()))
    closest, distant = (set(select_by_kind(pool, kind, share).ids) for kind in ("closest", "distant"))
    rest = set(distance) - closest
    assert all(distance[a] <= distance[b] for a in closest for b in rest)
    assert all((distance[a], a) < (distance[b], b) for a in closest for b in rest)
    assert all((distance[a], a) > (distance[b], b) for a in distant for b in set(distance) - distant)


@given(pools, shares)
def test_closest_and_distant_share_nothing_up_to_half(pool, share: float) -> None:
    closest, distant = select_by_kind(pool, "closest", share), select_by_kind(pool, "distant", share)
    if 2 * closest.k <= len(pool):
        assert not set(closest.ids) & set(distant.ids)


@given(pools, shares, shares, st.sampled_from(["closest", "distant", "random"]), st.integers(0, 9))
def test_a_smaller_share_is_part_of_a_larger(pool, a: float, b: float, kind: str, seed: int) -> None:
    small, large = (set(select_by_kind(pool, kind, share, seed).ids) for share in sorted((a, b)))
    assert small <= large


@given(
    pools,
    shares,
    st.sampled_from(["closest", "distant", "random"]),
    st.integers(0, 9),
    st.randoms(use_true_random=False),
)
def test_the_order_of_the_pool_does_not_matter(pool, share: float, kind: str, seed: int, random) -> None:
    order = list(range(len(pool)))
    random.shuffle(order)
    assert select_by_kind(pool.take(order), kind, share, seed) == select_by_kind(pool, kind, share, seed)


@given(pools, shares, st.sampled_from(["closest", "distant", "random"]), st.integers(0, 9))
def test_what_a_selection_says_of_itself(pool, share: float, kind: str, seed: int) -> None:
    made = select_by_kind(pool, kind, share, seed)
    assert made.k == len(made.ids) == max(1, int(share * len(pool) + 1e-9))
    assert list(made.ids) == sorted(set(made.ids))
    assert set(made.ids) <= set(pool.column("id").to_pylist())
    assert made.ids_hash == hashlib.sha256("\n".join(made.ids).encode()).hexdigest()
    assert made.seed == (seed if kind == "random" else None)
    assert selection_from_json(selection_to_json(made)) == made


def test_random_draws_are_repeatable_and_differ_by_seed() -> None:
    pool = table([k / 100 for k in range(100)])
    draws = [select_by_kind(pool, "random", 0.25, seed) for seed in range(20)]
    assert select_by_kind(pool, "random", 0.25, 7) == draws[7]
    assert len({draw.ids_hash for draw in draws}) == 20
    # Every item is as likely as another, whatever its distance: 20 x 25 of 100, 5 times each.
    counts = np.unique([id for draw in draws for id in draw.ids], return_counts=True)[1]
    assert counts.sum() == 500
    assert counts.max() < 15


def test_ties_fall_by_id() -> None:
    pool = table([1.0, 0.5, 0.5, 0.5, 0.0], ids=["a", "d", "b", "c", "z"])
    assert select_by_kind(pool, "closest", 2).ids == ("b", "z")
    assert select_by_kind(pool, "distant", 2).ids == ("a", "d")


@pytest.mark.parametrize(
    ("n", "amount", "k"),
    [
        (6083, 0.25, 1520),
        (6083, 0.5, 3041),
        (6083, 0.75, 4562),
        (100, 0.29, 29),
        (6, 1 / 3, 2),
        (3, 0.1, 1),
        (7, 1.0, 7),
        (10, 4, 4),
        (10, 1, 1),
    ],
)
def test_how_many(n: int, amount: float, k: int) -> None:
    made = select_by_kind(table([float(i) for i in range(n)]), "closest", amount)
    assert made.k == k
    assert made.fraction == (amount if isinstance(amount, float) else k / n)


@pytest.mark.parametrize("amount", [0.0, -0.1, 1.01, float("nan"), float("inf"), 0, -3, 6])
def test_amounts_out_of_range(amount: float) -> None:
    with pytest.raises(UndersongError, match="Cannot keep"):
        select_by_kind(table([0.1, 0.2, 0.3, 0.4, 0.5]), "closest", amount)


def test_nothing_to_select_from() -> None:
    with pytest.raises(UndersongError, match="pool is empty"):
        select_by_kind(table([0.1]).slice(0, 0), "closest", 0.5)
    with pytest.raises(UndersongError, match=r"2 axes \(a, b\)"):
        select_by_kind(pa.concat_tables([table([0.1], "a"), table([0.2], "b")]), "closest", 0.5)
    with pytest.raises(UndersongError, match="Unknown selection kind"):
        select_by_kind(table([0.1]), "nearest", 0.5)


@pytest.mark.parametrize(
    ("text", "meaning"),
    [("closest:0.25", ("closest", 0.25)), ("distant:200", ("distant", 200)), ("random:1.0", ("random", 1.0))],
)
def test_keep(text: str, meaning: tuple) -> None:
    rule = parse_rule(text)
    assert rule.is_simple
    assert (rule.kind, rule.amount) == meaning
    assert type(rule.amount) is type(meaning[1])


@pytest.mark.parametrize("text", ["closest", "closest:", "nearest:0.5", "closest:half", ":0.5", ""])
def test_keep_that_means_nothing(text: str) -> None:
    with pytest.raises(UndersongError, match="Cannot keep"):
        parse_rule(text)


@pytest.mark.parametrize("edit", [{"ids": ["i000"]}, {"k": 3}, {"ids_hash": "0"}, {"color": "red"}, {"ids": None}])
def test_an_edited_selection_is_refused(edit: dict) -> None:
    text = selection_to_json(select_by_kind(table([0.1, 0.2, 0.3, 0.4]), "closest", 0.5))
    with pytest.raises(UndersongError):
        selection_from_json(json.dumps({**json.loads(text), **edit}))
    with pytest.raises(UndersongError, match="is no selection"):
        selection_from_json("not json")


def test_agreement_of_axes() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one = rng.random(40)
    other = one + 0.3 * rng.random(40)
    tables = {
        "one": table(one.tolist(), "one"),
        "same": table((2 * one).tolist(), "same"),
        "other": table(other.tolist(), "other").slice(0, 39),  # an item fewer: only what is common counts
        "reverse": table((-one).tolist(), "reverse"),
    }
    made = axis_agreement_matrix(tables, 0.25)
    assert made.axes == tuple(tables)
    assert made.n == 39
    assert np.allclose(np.diag(made.spearman), 1)
    assert made.spearman[0, 1] == pytest.approx(1)
    assert made.spearman[0, 3] == pytest.approx(-1)
    assert made.spearman[0, 2] == pytest.approx(spearmanr(one[:39], other[:39]).statistic)
    assert made.overlap_closest[0].tolist()[::3] == [1.0, 0.0]
    with pytest.raises(UndersongError, match="0 items in common"):
        axis_agreement_matrix({"a": table([0.1, 0.2]), "b": table([0.1, 0.2], ids=["x", "y"])})


def test_overlap_and_equal_selections() -> None:
    pool, reverse = table([0.1, 0.2, 0.3, 0.4]), table([0.4, 0.3, 0.2, 0.1])
    chosen = {
        "a": select_by_kind(pool, "closest", 2),
        "b": select_by_kind(reverse, "distant", 2),
        "c": select_by_kind(pool, "closest", 3),
    }
    assert selection_overlaps(chosen)["a"] == {"b": 1.0, "c": pytest.approx(2 / 3)}
    assert equal_selections(chosen) == {"a": ["b"], "b": ["a"], "c": []}
