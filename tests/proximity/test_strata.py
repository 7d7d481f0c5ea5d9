"""Bands, thresholds, caps and matching against plain loops."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_tables import facts, table

from undersong.proximity.rules import SelectionRule, parse_rule
from undersong.proximity.selection import (
    ids_hash,
    select_by_kind,
    select_by_rule,
    selection_from_json,
    selection_to_json,
)
from undersong.proximity.strata import quantile_bins, stratum_quotas, take_within_limits
from undersong.types import UndersongError

few = st.sampled_from([0.0, 0.25, 0.5, 1.0])  # so that ties are everywhere
items = st.lists(st.tuples(few, few, st.sampled_from("ABC"), st.sampled_from("xyz")), min_size=1, max_size=40)
amounts = st.one_of(st.floats(0.02, 1.0), st.just(1))
kinds = st.sampled_from(["closest", "distant", "random"])


def pool_of(rows: list) -> tuple[pa.Table, pa.Table, pa.Table]:
    """Two axes of one pool, and its facts."""
    one, other, speakers, groups = zip(*rows)
    first = table(one, "acoustic")
    return first, table(other, "semantic"), facts(first.column("id").to_pylist(), speaker=speakers, group=groups)


def in_order(pool: pa.Table, kind: str, seed: int) -> list[str]:
    """Ids in the order a rule wants them, the slow way."""
    ids = pool.column("id").to_pylist()
    if kind == "random":
        return [sorted(ids)[i] for i in np.random.default_rng(seed).permutation(len(ids))]
    ranked = [id for _, id in sorted(zip(pool.column("rank").to_pylist(), ids))]
    return ranked if kind == "closest" else ranked[::-1]


@given(items, st.lists(st.floats(0.01, 0.99), max_size=3, unique=True))
def test_bands_part_the_ranking(rows, cuts) -> None:
    pool, _, _ = pool_of(rows)
    ends, seen, ranked = [0.0, *sorted(cuts), 1.0], [], in_order(pool, "closest", 0)
    for low, high in pairwise(ends):
        if math.floor(round(high * len(rows), 9)) == len(seen):
            with pytest.raises(UndersongError, match="No item"):
                select_by_rule(pool, SelectionRule("band", low, high))
            continue
        band = select_by_rule(pool, SelectionRule("band", low, high))
        assert sorted(ranked[len(seen) : len(seen) + band.k]) == list(band.ids)
        seen += ranked[len(seen) : len(seen) + band.k]
    assert seen == ranked


@given(items, st.one_of(few, st.floats(0, 2, width=32)))
def test_thresholds(rows, at: float) -> None:
    pool, _, _ = pool_of(rows)
    score = dict(zip(pool.column("id").to_pylist(), pool.column("distance").to_pylist()))
    for kind, inside in (("below", lambda d: d < at), ("above", lambda d: d > at)):
        expected = tuple(sorted(id for id, distance in score.items() if inside(distance)))
        if expected:
            assert select_by_rule(pool, SelectionRule(kind, at)).ids == expected
        else:
            with pytest.raises(UndersongError, match=f"is in {kind}:.*its scores go from"):
                select_by_rule(pool, SelectionRule(kind, at))


def test_a_score_that_reads_as_the_threshold_is_on_neither_side() -> None:
    pool = table([0.1, 0.3, 0.5])  # 0.3 in float32 is above 0.3
    assert select_by_rule(pool, parse_rule("below:0.3")).ids == ("i000",)
    assert select_by_rule(pool, parse_rule("above:0.3")).ids == ("i002",)


@given(items, kinds, amounts, st.integers(0, 3), st.integers(1, 5))
def test_caps(rows, kind: str, amount, seed: int, most: int) -> None:
    pool, _, known = pool_of(rows)
    made = select_by_rule(pool, SelectionRule(kind, amount, caps=(("group", most),)), seed, metadata=known)
    group = dict(zip(known.column("id").to_pylist(), known.column("group").to_pylist()))
    expected, used = [], Counter()
    asked = select_by_kind(pool, kind, amount, seed).k
    for id in in_order(pool, kind, seed):
        if used[group[id]] < most and len(expected) < asked:
            used[group[id]] += 1
            expected.append(id)
    assert made.ids == tuple(sorted(expected))
    possible = sum(min(most, size) for size in Counter(group.values()).values())
    assert made.k == min(asked, possible)
    assert made.asked == (asked if possible < asked else None)
    assert bool(made.notes) == (possible < asked)
    wider = select_by_rule(pool, SelectionRule(kind, amount, caps=(("group", most + 1),)), seed, metadata=known)
    assert wider.k >= made.k
    assert selection_from_json(selection_to_json(made)) == made


@given(items, kinds, amounts, st.integers(0, 3))
def test_matched_shares_are_exact_to_one_item(rows, kind: str, amount, seed: int) -> None:
    pool, _, known = pool_of(rows)
    made = select_by_rule(pool, SelectionRule(kind, amount, matched=("speaker",)), seed, metadata=known)
    plain = select_by_kind(pool, kind, amount, seed)
    speaker = dict(zip(known.column("id").to_pylist(), known.column("speaker").to_pylist()))
    assert made.k == plain.k
    sizes, got = Counter(speaker.values()), Counter(speaker[id] for id in made.ids)
    for name, size in sizes.items():
        assert abs(Fraction(size * made.k, len(rows)) - got[name]) < 1
        # Within a speaker the first by rank.
        mine = [id for id in in_order(pool, kind, seed) if speaker[id] == name]
        assert set(mine[: got[name]]) == {id for id in made.ids if speaker[id] == name}


@given(items, kinds, amounts, st.integers(0, 3), st.randoms(use_true_random=False))
def test_no_rule_depends_on_the_order_of_the_pool(rows, kind: str, amount, seed: int, random) -> None:
    pool, other, known = pool_of(rows)
    order = list(range(len(rows)))
    random.shuffle(order)
    keep = SelectionRule(kind, amount, None, (("group", 9),), ("speaker",), "semantic", 3)
    made = select_by_rule(pool, keep, seed, metadata=known, other_tables={"semantic": other})
    moved = select_by_rule(
        pool.take(order), keep, seed, metadata=known, other_tables={"semantic": other.take(order[::-1])}
    )
    assert moved.ids == made.ids
    assert moved.notes[:-1] == made.notes[:-1]
    assert len(set(made.ids)) == made.k
    assert set(made.ids) <= set(pool.column("id").to_pylist())


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.data())
def test_quotas_are_hamiltons(strata, data) -> None:
    k = data.draw(st.integers(1, len(strata)))
    made = stratum_quotas(np.array(strata), k)
    sizes = Counter(strata)
    exact = {s: Fraction(size * k, len(strata)) for s, size in sizes.items()}
    assert made.sum() == k
    assert all(int(exact[s]) <= made[s] <= sizes[s] for s in sizes)
    rests = {s: exact[s] - int(exact[s]) for s in sizes}
    up, down = ([rests[s] for s in sizes if (made[s] > int(exact[s])) is went] for went in (True, False))
    assert all(rest > 0 for rest in up)
    assert not up or not down or min(up) >= max(down)


def test_strata_of_one_item_are_kept_by_rank_and_said() -> None:
    pool = table([0.5, 0.1, 0.4, 0.2, 0.3])
    known = facts([f"i00{k}" for k in range(5)], speaker=list("zyxwv"))
    made = select_by_rule(pool, parse_rule("closest:3+matched(speaker)"), metadata=known)
    assert made.ids == select_by_kind(pool, "closest", 3).ids
    assert "5 of 5 strata hold one item" in made.notes[0]
    assert "5 strata for 3 items" in made.notes[1]


def test_matched_to_another_selection() -> None:
    pool = table([k / 40 for k in range(40)])
    ids = pool.column("id").to_pylist()
    known = facts(ids, speaker=["AAAB"[k % 4] for k in range(40)])
    like = [ids[k] for k in (0, 1, 2, 4, 3, 7, 11, 15)]  # four of each speaker
    made = select_by_rule(pool, parse_rule("distant:8+matched(speaker)"), metadata=known, match_ids=like)
    speakers = Counter(ids.index(id) % 4 == 3 for id in made.ids)
    assert speakers == Counter(ids.index(id) % 4 == 3 for id in like)
    assert made.notes == (f"Shares are those of another selection, ids hash {ids_hash(like)}.",)
    short = select_by_rule(
        pool, parse_rule("closest:24+matched(speaker)"), metadata=known, match_ids=like
    )  # only 10 of speaker B
    assert (short.k, short.asked) == (22, 24)
    assert "22 of the 24" in short.notes[0]
    with pytest.raises(UndersongError, match="matches nothing to another"):
        select_by_rule(pool, parse_rule("closest:8"), match_ids=like)
    with pytest.raises(UndersongError, match="1 of the 1 items to match"):
        select_by_rule(pool, parse_rule("closest:8+matched(speaker)"), metadata=known, match_ids=["elsewhere"])


def test_lengths_are_matched_by_quarter_and_missing_ones_are_their_own() -> None:
    rng = np.random.default_rng(1)
    seconds = [*rng.permutation(60).astype(float).tolist(), *[None] * 20]
    pool = table(rng.random(80).tolist())
    ids = pool.column("id").to_pylist()
    known = facts(ids, seconds=pa.array(seconds, pa.float64()), answer=[f"{k:02d}" * (1 + k % 7) for k in range(80)])
    made = select_by_rule(pool, parse_rule("closest:16+matched(seconds)"), metadata=known)
    got = Counter("none" if seconds[ids.index(i)] is None else int(seconds[ids.index(i)] // 15) for i in made.ids)
    assert sorted(got.values()) == [3, 3, 3, 3, 4]
    answers = select_by_rule(pool, parse_rule("closest:40+matched(answer)"), metadata=known)
    assert answers.notes == ()  # all answers differ, and their lengths do not
    lengths = Counter((ids.index(i) % 7) // 2 for i in answers.ids)
    assert max(lengths.values()) <= 13  # 23 or so of 80 are in each bin of two lengths, 11 or 12 of 40


def test_items_without_a_group_are_their_own() -> None:
    pool = table([0.1, 0.2, 0.3, 0.4])
    known = facts([f"i00{k}" for k in range(4)], group=pa.array([None, None, "g", "g"], pa.string()))
    made = select_by_rule(pool, parse_rule("closest:4+group<=1"), metadata=known)
    assert made.ids == ("i000", "i001", "i002")


@given(st.lists(st.one_of(few, st.just(np.nan)), max_size=30), st.integers(2, 6))
def test_bins_hold_equal_numbers_together(values, many: int) -> None:
    made = quantile_bins(np.array(values, dtype=float), many)
    assert all((b == -1) == np.isnan(v) for v, b in zip(values, made))
    for a, b in zip(values, made):
        for c, d in zip(values, made):
            assert a != c or b == d
            assert not (a < c) or b <= d
    assert made.max(initial=-1) < many


@given(st.integers(1, 60), st.integers(2, 9), st.randoms(use_true_random=False))
def test_bins_of_different_numbers_are_of_one_size(n: int, many: int, random) -> None:
    values = random.sample(range(1000), n)
    sizes = np.bincount(quantile_bins(np.array(values, dtype=float), many), minlength=many)
    assert len(sizes) == many
    assert sizes.max() - sizes.min() <= 1


def test_walk_keeps_within_every_limit() -> None:
    one, other = np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 1])
    assert take_within_limits([4, 3, 2, 1, 0], 9, [(one, np.array([1, 2])), (other, np.array([1, 2]))]) == [4, 3, 0]


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ("closest:2+group<=1", "no column 'group' to select by; it has speaker"),
        ("closest:2+matched(accent)", "no column 'accent'"),
        ("closest:2+within(sematic)", "no axis or column 'sematic' to select within; choose one of other, speaker"),
    ],
)
def test_what_is_not_there(keep: str, message: str) -> None:
    pool = table([0.1, 0.2, 0.3])
    known = facts(["i000", "i001", "i002"], speaker=["A"] * 3)
    with pytest.raises(UndersongError, match=message):
        select_by_rule(pool, parse_rule(keep), metadata=known, other_tables={"other": pool})
    with pytest.raises(UndersongError, match="i002 has no metadata"):
        select_by_rule(pool, parse_rule("closest:2+matched(speaker)"), metadata=known.slice(0, 2))


def test_files_of_before_are_read_and_plain_ones_are_written_as_before() -> None:
    old = {
        "axis": "semantic",
        "score": "nearest",
        "kind": "closest",
        "fraction": 0.5,
        "k": 2,
        "seed": None,
        "ids": ["a", "b"],
        "ids_hash": hashlib.sha256(b"a\nb").hexdigest(),
    }
    read = selection_from_json(json.dumps(old))
    assert (read.rule, read.asked, read.notes, read.harm_set) == ("", None, (), "")
    assert json.loads(selection_to_json(read)) == old
    made = select_by_kind(table([0.1, 0.2, 0.3, 0.4], ids=["a", "b", "c", "d"]), "closest", 0.5)
    assert made == read
    assert list(json.loads(selection_to_json(made))) == list(old)
