"""Conditional selections: closest on one axis within strata of another, and what could not be separated."""

from __future__ import annotations

import numpy as np
import pytest
from made_tables import facts, table

from undersong.proximity.rules import parse_rule
from undersong.proximity.selection import select_by_kind, select_by_rule, selection_residual


def test_within_an_axis_its_closest_no_longer_ride_along() -> None:
    """Two axes that are nearly one: plain closest takes the other's closest too, within strata it cannot."""
    rng = np.random.default_rng(0)
    semantic = rng.random(1000)
    acoustic = semantic + 0.3 * rng.random(1000)
    tables = {"semantic": table(semantic.tolist()), "acoustic": table(acoustic.tolist(), "acoustic")}
    keep = parse_rule("closest:0.25+within(semantic:10)")
    made = select_by_rule(tables["acoustic"], keep, other_tables=tables)
    ids, chosen = tables["acoustic"].column("id").to_pylist(), set(made.ids)
    inside = np.array([id in chosen for id in ids])
    stratum = np.floor(np.argsort(np.argsort(semantic)) / 100).astype(int)
    assert np.bincount(stratum[inside]).tolist() == [25] * 10
    for s in range(10):
        mine = np.flatnonzero(stratum == s)
        assert set(mine[np.argsort(acoustic[mine])][:25]) == set(np.flatnonzero(inside & (stratum == s)))
    left = selection_residual(tables["acoustic"], keep, made, tables)
    assert (left.strata, left.singles, left.measured) == (10, 0, 1000)
    assert left.jaccard < 0.2 < 0.5 < left.jaccard_plain
    assert left.jaccard_chance == pytest.approx(250 / 1750)
    assert abs(left.shift) < 0.1 < 1 < -left.shift_plain
    assert left.spearman == pytest.approx(np.corrcoef(np.argsort(np.argsort([semantic, acoustic])))[0, 1])
    within = [
        np.corrcoef(np.argsort(np.argsort(np.array([semantic, acoustic])[:, stratum == s])))[0, 1] for s in range(10)
    ]
    assert left.spearman_within == pytest.approx(np.mean(within))
    assert made.notes == (left.sentence,)
    assert f"Jaccard {left.jaccard:.2f}" in left.sentence
    converse = select_by_rule(tables["semantic"], parse_rule("closest:0.25+within(acoustic:10)"), other_tables=tables)
    assert converse.ids != made.ids
    assert "Beside the closest on acoustic" in converse.notes[0]


def test_the_far_end_is_compared_with_the_far_end() -> None:
    values = [k / 100 for k in range(100)]
    tables = {"semantic": table(values), "acoustic": table(values, "acoustic")}
    keep = parse_rule("distant:20+within(semantic:5)")
    made = select_by_rule(tables["acoustic"], keep, other_tables=tables)
    left = selection_residual(tables["acoustic"], keep, made, tables)
    assert (left.jaccard_plain, left.jaccard) == (1, pytest.approx(4 / 36))
    assert "Beside the most distant on semantic" in made.notes[0]


def test_ties_on_the_other_axis_leave_fewer_strata_and_it_is_said() -> None:
    pool, other = table([k / 20 for k in range(20)]), table([0.1, 0.2, *[1.0] * 18], "words")
    made = select_by_rule(pool, parse_rule("closest:10+within(words:5)"), other_tables={"words": other})
    assert "Equal scores on words leave 2 of 5 strata." in made.notes


def test_within_a_group_the_closest_of_each() -> None:
    """One question in four accents: the nearest accent of each question."""
    rng = np.random.default_rng(0)
    distances = rng.random(80)
    pool = table(distances.tolist())
    ids = pool.column("id").to_pylist()
    known = facts(ids, group=[f"q{k // 4}" for k in range(80)])
    made = select_by_rule(pool, parse_rule("closest:20+within(group)"), metadata=known)
    assert set(made.ids) == {ids[4 * q + int(distances[4 * q : 4 * q + 4].argmin())] for q in range(20)}
    assert made.notes == ()


def test_a_constant_other_axis_separates_nothing_and_says_so() -> None:
    pool, other = table([0.3, 0.1, 0.2, 0.4]), table([0.5] * 4, "acoustic")
    made = select_by_rule(pool, parse_rule("closest:2+within(acoustic)"), other_tables={"acoustic": other})
    assert made.ids == select_by_kind(pool, "closest", 2).ids
    assert "All items are in one stratum" in made.notes[0]
    assert "(pool not measurable)" in made.notes[1]
