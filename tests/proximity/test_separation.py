"""Does an axis tell harm from ordinary items: ROC areas of held-out halves."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.proximity.separation import axis_level, separates, separation_auc, separation_sentence, split_by_cluster
from undersong.statistics.bootstrap import Interval
from undersong.types import UndersongError


def area(shift: float, seed: int = 0, harm_clusters: list[int] | None = None) -> tuple[float, float, float]:
    """AUC and interval of an axis on which harm lies `shift` standard deviations nearer."""
    rng = np.random.default_rng(seed)
    harm, ordinary = rng.normal(-shift, size=120), rng.normal(size=200)
    clusters = harm_clusters or list(range(120))
    interval = separation_auc(lambda target, heldout: (harm[heldout], ordinary), clusters, list(range(200)), draws=100)
    assert interval.low is not None
    assert interval.high is not None
    return interval.value, interval.low, interval.high


def test_an_axis_that_separates_is_told_from_one_that_does_not() -> None:
    value, low, _ = area(1.5)
    assert value == pytest.approx(0.86, abs=0.05)  # of two normal distributions: Phi(1.5 / sqrt 2)
    assert low > 0.7
    assert sum(area(0.0, seed)[1] > 0.5 for seed in range(40)) <= 4  # nominal: 1


def test_clusters_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    harm, ordinary = np.repeat(rng.normal(-0.5, size=12), 10), rng.normal(size=200)
    widths = []
    for clusters in (list(range(120)), [i // 10 for i in range(120)]):
        interval = separation_auc(
            lambda target, heldout: (harm[heldout], ordinary), clusters, list(range(200)), draws=100
        )
        assert interval.low is not None
        assert interval.high is not None
        widths.append(interval.high - interval.low)
    assert widths[1] > 1.3 * widths[0]


def test_halves_are_of_whole_clusters() -> None:
    clusters = [i // 3 for i in range(30)]
    first, second = split_by_cluster(clusters, 0)
    assert sorted([*first, *second]) == list(range(30))
    assert not {clusters[i] for i in first} & {clusters[i] for i in second}
    with pytest.raises(UndersongError, match="single cluster"):
        split_by_cluster(["a", "a"], 0)


def test_only_an_interval_above_chance_separates() -> None:
    for low, high, tells in ((0.51, 0.9, True), (0.5, 0.9, False), (0.1, 0.4, False), (None, None, False)):
        auc = Interval(0.7, low, high)
        assert separates(auc) is tells
        verb = "separates" if tells else "does not significantly separate"
        assert separation_sentence("words", auc, "songs").startswith(
            f"The axis words {verb} held-out harmful requests from songs (AUC "
        )
    assert axis_level(5) == pytest.approx(0.99)


def test_the_sentence_on_an_axis_says_which_lie_nearer() -> None:
    assert separation_sentence("words", Interval(0.85, 0.8, 0.9)) == (
        "The axis words separates held-out harmful requests from ordinary requests "
        "(AUC 0.85 [0.80, 0.90]; 0.5 is chance)."
    )
    assert separation_sentence("words", Interval(0.25, 0.2, 0.3)).endswith(
        "(AUC 0.25 [0.20, 0.30]; 0.5 is chance): ordinary requests lie nearer to the harm set than held-out harmful "
        "requests do."
    )
