"""Paired comparison: published values, naive re-implementations, properties, degenerate cases and coverage."""

from itertools import product
from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from undersong.statistics.paired import compare_paired, mcnemar_exact, newcombe_paired, sign_flip_test
from undersong.statistics.rates import clustered_rate
from undersong.types import UndersongError

cell = st.integers(0, 60)
tables = st.tuples(cell, cell, cell, cell).filter(lambda table: sum(table) > 0)
pairs = st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 6)), min_size=1, max_size=50)


@pytest.mark.parametrize(
    ("table", "low", "high"),
    [
        # Fagerland, Lydersen and Laake 2017, chapter 8, square-and-add: Cavo et al. 2012, Bentur et al. 2009
        ((59, 6, 16, 80), -0.1186, -0.0046),
        ((1, 1, 7, 12), -0.507, -0.026),
    ],
)
def test_published_paired_intervals(table, low, high):
    digits = 4 if table[0] == 59 else 3
    assert [round(limit, digits) for limit in newcombe_paired(*table)] == [low, high]


def naive_newcombe(a, b, c, d, level):
    """Newcombe 1998, method 10, from statsmodels' Wilson intervals and the paper's three cases for phi."""
    n = a + b + c + d
    p1, p2 = (a + b) / n, (a + c) / n
    l1, u1 = proportion_confint(a + b, n, 1 - level, method="wilson")
    l2, u2 = proportion_confint(a + c, n, 1 - level, method="wilson")
    product_of_margins, determinant = (a + b) * (c + d) * (a + c) * (b + d), a * d - b * c
    if product_of_margins == 0:
        phi = 0.0
    elif determinant > n / 2:
        phi = (determinant - n / 2) / sqrt(product_of_margins)
    elif determinant >= 0:
        phi = 0.0
    else:
        phi = determinant / sqrt(product_of_margins)
    low = p1 - p2 - sqrt((p1 - l1) ** 2 - 2 * phi * (p1 - l1) * (u2 - p2) + (u2 - p2) ** 2)
    high = p1 - p2 + sqrt((p2 - l2) ** 2 - 2 * phi * (p2 - l2) * (u1 - p1) + (u1 - p1) ** 2)
    return low, high


@given(tables, st.sampled_from([0.9, 0.95]))
def test_newcombe_equals_a_naive_implementation(table, level):
    assert newcombe_paired(*table, level) == pytest.approx(naive_newcombe(*table, level), abs=1e-9)


@given(tables)
def test_newcombe_holds_its_estimate_and_swaps(table):
    a, b, c, d = table
    low, high = newcombe_paired(a, b, c, d)
    assert -1 <= low <= (b - c) / sum(table) <= high <= 1
    assert newcombe_paired(a, c, b, d) == pytest.approx((-high, -low), abs=1e-12)


@given(tables)
def test_newcombe_narrows_with_n(table):
    low, high = newcombe_paired(*table)
    closer = newcombe_paired(*(4 * count for count in table))
    assert closer[1] - closer[0] < high - low


@given(cell, cell)
def test_mcnemar_equals_statsmodels(b, c):
    assert mcnemar_exact(b, c) == pytest.approx(mcnemar([[0, b], [c, 0]], exact=True).pvalue if b + c else 1.0)
    assert mcnemar_exact(b, c) == mcnemar_exact(c, b)


def test_published_mcnemar():
    assert mcnemar_exact(6, 16) == pytest.approx(0.052479, abs=5e-7)  # Cavo et al. 2012, as above
    assert mcnemar_exact(0, 0) == 1.0


@given(st.lists(st.integers(-4, 4), max_size=9))
def test_sign_flip_equals_all_flips_written_out(totals):
    observed = abs(sum(totals))
    flips = [
        abs(sum(sign * total for sign, total in zip(signs, totals))) for signs in product((-1, 1), repeat=len(totals))
    ]
    assert sign_flip_test(totals) == pytest.approx(sum(flip >= observed for flip in flips) / 2 ** len(totals))


@given(st.integers(0, 40), st.integers(0, 40))
def test_sign_flip_of_single_prompts_is_mcnemar(b, c):
    assert sign_flip_test([-1] * b + [1] * c + [0] * 5) == pytest.approx(mcnemar_exact(b, c))


def test_sign_flip_of_many_clusters_is_exact():
    assert sign_flip_test([3] * 40) == pytest.approx(2 / 2**40, rel=1e-12)
    assert sign_flip_test([1] * 301 + [-1] * 300) == pytest.approx(1.0)
    tail = sum(comb(200, k) for k in range(120, 201)) / 2**200
    assert sign_flip_test([2] * 120 + [-2] * 80) == pytest.approx(2 * tail, rel=1e-9)


@given(pairs)
def test_compare_counts_as_a_loop_does(rows):
    before, after, clusters = (list(column) for column in zip(*rows))
    found = compare_paired(before, after, clusters)
    assert found.n == len(rows)
    assert (found.b, found.c) == (sum(x and not y for x, y, _ in rows), sum(y and not x for x, y, _ in rows))
    assert found.difference == pytest.approx((sum(after) - sum(before)) / len(rows))
    assert found.before == clustered_rate(before, clusters)  # what the side has alone
    assert found.after.successes == sum(after)
    assert found.clusters == len(set(clusters))
    assert found.difference_low <= found.difference <= found.difference_high
    assert -1 <= found.clustered_low <= found.difference <= found.clustered_high <= 1
    assert 0 < found.clustered_p <= 1


@given(pairs)
def test_swapping_before_and_after_negates(rows):
    before, after, clusters = (list(column) for column in zip(*rows))
    there, back = compare_paired(before, after, clusters), compare_paired(after, before, clusters)
    assert (back.b, back.c, back.difference) == (there.c, there.b, -there.difference)
    assert (back.p, back.clustered_p) == pytest.approx((there.p, there.clustered_p))
    for name in ("difference", "clustered"):
        low, high = getattr(there, f"{name}_low"), getattr(there, f"{name}_high")
        mirrored = getattr(back, f"{name}_low"), getattr(back, f"{name}_high")
        assert mirrored == pytest.approx((-high, -low), abs=1e-12)


@given(pairs)
def test_prompts_that_are_their_own_cluster_give_the_plain_test(rows):
    found = compare_paired([row[0] for row in rows], [row[1] for row in rows])
    plain = (found.difference_low, found.difference_high, found.p)
    assert (found.clustered_low, found.clustered_high, found.clustered_p) == pytest.approx(plain, abs=1e-9)


def test_copies_of_one_request_are_no_new_evidence():
    before, after = [0] * 12, [1] * 6 + [0] * 6
    once = compare_paired(before, after)
    thrice = compare_paired(np.repeat(before, 3), np.repeat(after, 3), np.repeat(np.arange(12), 3).tolist())
    assert thrice.p < 1e-4 < once.p
    assert thrice.clustered_p == pytest.approx(once.p)
    assert thrice.clustered_high - thrice.clustered_low >= once.difference_high - once.difference_low


def test_nothing_changed_is_not_certainty():
    found = compare_paired([0] * 108, [0] * 108, np.repeat(np.arange(36), 3).tolist())
    assert (found.p, found.clustered_p, found.difference) == (1.0, 1.0, 0.0)
    assert found.clustered_low < found.difference_low < 0 < found.difference_high < found.clustered_high


def test_one_cluster_is_one_request():
    found = compare_paired([0] * 9, [1] * 9, ["only"] * 9)
    assert found.clustered_p == 1.0
    assert found.clustered_low <= 0 < found.difference_low


@pytest.mark.parametrize(
    ("before", "after", "clusters"), [([], [], None), ([1], [1, 0], None), ([1, 0], [1, 0], ["a"]), ([2], [0], None)]
)
def test_bad_pairs_are_errors(before, after, clusters):
    with pytest.raises(UndersongError):
        compare_paired(before, after, clusters)


@pytest.mark.parametrize("table", [(0, 0, 0, 0), (-1, 2, 3, 4)])
def test_bad_tables_are_errors(table):
    with pytest.raises(UndersongError):
        newcombe_paired(*table)


def test_the_published_gap_between_equal_selections():
    """196 against 16 of 520 from (near-)identical selections: far beyond prompt noise, so it is run noise."""
    before, after = np.arange(520) < 16, np.arange(520) < 196
    found = compare_paired(before, after)
    assert found.difference == pytest.approx(180 / 520)
    assert found.difference_low > 0.3
    assert found.p < 1e-50


def simulate(clusters, size, rates, correlation, repeats, seed):
    """Coverage of both intervals and rejections of both tests, as shares, over paired beta-binomial samples."""
    rng = np.random.default_rng(seed)
    labels, spread = np.repeat(np.arange(clusters), size).tolist(), (1 - correlation) / correlation
    total = np.zeros(4)
    for _ in range(repeats):
        own = [np.repeat(rng.beta(rate * spread, (1 - rate) * spread, clusters), size) for rate in rates]
        found = compare_paired(*(rng.random(clusters * size) < chance for chance in own), labels)
        truth = rates[1] - rates[0]
        total += (
            found.clustered_low <= truth <= found.clustered_high,
            found.difference_low <= truth <= found.difference_high,
            found.clustered_p <= 0.05,
            found.p <= 0.05,
        )
    return total / repeats


def test_clusters_keep_coverage_and_level_where_prompts_lose_them():
    clustered, plain, clustered_rejects, plain_rejects = simulate(36, 3, (0.3, 0.3), 0.7, repeats=800, seed=3)
    assert clustered >= 0.93
    assert plain < 0.88
    assert clustered_rejects <= 0.065
    assert plain_rejects > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("clusters", [6, 12, 36])
@pytest.mark.parametrize("rates", [(0.02, 0.02), (0.05, 0.3), (0.3, 0.3), (0.1, 0.6)])
@pytest.mark.parametrize("correlation", [0.05, 0.3, 0.7])
def test_paired_coverage_over_the_grid(clusters, rates, correlation):
    clustered, _, rejects, _ = simulate(clusters, 3, rates, correlation, repeats=3000, seed=4)
    assert clustered >= 0.93
    if rates[0] == rates[1]:
        assert rejects <= 0.06
