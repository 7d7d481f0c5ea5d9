"""Counts below a low quantile of a reference: exact under exchangeability, and wider where values are clustered."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.statistics.exceedances import low_quantile, predicted_count
from undersong.statistics.rates import clustered_rate
from undersong.types import UndersongError


def outside_share(reference_size: int, per_cluster: int, design_effect: bool = True) -> float:
    """Share of simulated files of the reference's own distribution whose count lies above the prediction interval."""
    above, seeds, new_values = 0, 120, 800
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        reference = rng.exponential(size=reference_size)
        quantile = low_quantile(reference, 0.01, range(reference_size))
        values = np.repeat(rng.exponential(size=new_values // per_cluster), per_cluster)
        rate = clustered_rate(values <= quantile.value, np.arange(new_values) // per_cluster)
        expected = predicted_count(quantile, new_values, rate.design_effect if design_effect else 1.0)
        assert expected.high is not None
        above += rate.successes > expected.high
    return above / seeds


def test_files_like_the_reference_are_rarely_called_more() -> None:
    assert outside_share(600, 1) <= 0.06  # nominal: 0.025


def test_copies_of_few_texts_do_not_make_a_file_more() -> None:
    assert outside_share(4000, 20) <= 0.06
    assert outside_share(4000, 20, design_effect=False) > 0.12  # the clusters matter


def test_the_mean_is_that_of_the_order_statistic() -> None:
    quantile = low_quantile(np.arange(200.0), 0.01, range(200))
    assert (quantile.value, quantile.rank) == (1.0, 2)
    expected = predicted_count(quantile, 1005)
    assert expected.value == pytest.approx(1005 * 2 / 201)
    drawn = np.random.default_rng(0).binomial(1005, np.random.default_rng(1).beta(2, 199, size=20_000))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([expected.low, expected.high], abs=1.1)


def test_clusters_of_the_reference_widen_the_interval() -> None:
    values = np.repeat(np.arange(100.0), 4)
    single, clustered = (low_quantile(values, 0.02, labels) for labels in (range(400), np.arange(400) // 4))
    assert clustered.design_effect > 1 == single.design_effect
    narrow, wide = (predicted_count(quantile, 1000) for quantile in (single, clustered))
    assert narrow.high is not None
    assert wide.high is not None
    assert wide.high > narrow.high


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_values_that_are_nearly_all_equal_do_not_count_as_low(dtype: type[np.floating]) -> None:
    values = np.array([0.5, *[1.0] * 399], dtype)
    quantile = low_quantile(values, 0.01, range(400))
    assert (values <= quantile.value).sum() == 1  # and not all 400
    few_ties = np.array([0.5, *[0.7] * 7, *[1.0] * 392], dtype)
    assert low_quantile(few_ties, 0.01, range(400)).value == pytest.approx(0.7)


def test_too_few_values_say_how_many_are_needed() -> None:
    with pytest.raises(UndersongError, match="99 values have no lowest 1%; give at least 100"):
        low_quantile(np.arange(99.0), 0.01, range(99))
    assert predicted_count(low_quantile(np.arange(100.0), 0.01, range(100)), 0).high == 0
