"""Inference with training runs as the sample: paired t intervals over independent units, means over runs, and run
noise."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, isfinite, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from undersong.statistics.bootstrap import Interval
from undersong.statistics.bounded_mean import lower_mean_bound, mean_tail, upper_mean_bound
from undersong.statistics.rates import clustered_mean, critical_value
from undersong.types import UndersongError

RunKey = tuple[int, int, int]  # base, draw, seed
ValueRange = tuple[float, float]
KEY_FIELDS = ("base", "draw", "seed")
NOTE_SINGLE_UNIT = "Only one independent {unit}: run noise cannot be estimated, so there is no interval and no test."
NOTE_EQUAL_UNITS = (
    "All {units} {unit}s agree exactly: run noise cannot be estimated, so there is no interval and no test."
)
NOTE_BOUND = (
    "All {units} {unit}s agree exactly, which does not exclude run noise: the interval is what {units} equal {unit}s "
    "leave possible for any run noise."
)


@dataclass(frozen=True, slots=True)
class RunPair:
    """Results of both arms at the same base, draw and seed; `difference` is b - a."""

    base: int
    draw: int
    seed: int
    a: float
    b: float
    difference: float


@dataclass(frozen=True, slots=True)
class RunDifference:
    """Difference b - a over `n` paired runs, which make `units` independent units.

    `low`, `high` and `p` are None for a single unit, which shows no run noise; `note` then says so. It also says where
    all units agree exactly, so that the interval is a bound for any run noise.
    """

    n: int
    units: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    method: str
    estimates: tuple[RunPair, ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class RunMean:
    """Mean over `n` runs, which make `units` independent units; `low` and `high` are None if run noise is unknown."""

    n: int
    units: int
    mean: float
    low: float | None
    high: float | None
    method: str
    note: str = ""


def paired_runs(
    a: Mapping[RunKey, float], b: Mapping[RunKey, float], level: float = 0.95, limits: ValueRange | None = None
) -> RunDifference:
    """Paired t interval of b - a, over runs paired by (base, draw, seed).

    If there are several bases, runs are averaged within their base and bases are the sample; else draws, else seeds.

    Args:
        a: Results of the first arm.
        b: Results of the second arm.
        level: Confidence level.
        limits: Range of a possible difference, such as (-1, 1) for shares; the interval is cut there. If all units
            differ by the same amount, interval and p value are those of `bound_run_mean` in this range; without a range
            there are none.

    Raises:
        UndersongError: A run has no partner (all are named), there are no runs, or a value is not finite.
    """
    missing = [f"a has no {_run_name(key)}" for key in sorted(b.keys() - a.keys())]
    missing += [f"b has no {_run_name(key)}" for key in sorted(a.keys() - b.keys())]
    if missing:
        raise UndersongError(f"Runs cannot be paired: {'; '.join(missing)}; run these or leave their partners out.")
    pairs = tuple(RunPair(*key, a[key], b[key], b[key] - a[key]) for key in sorted(a))
    unit, values = unit_means({key: b[key] - a[key] for key in a})
    low, high, p, note = _t_inference(values, unit, level, limits)
    method = _method("paired t", unit, len(values), len(pairs))
    if len(values) > 1 and low is None and limits is not None:
        low, high, p = _bound_inference(float(values[0]), len(values), level, limits)
        note, method = NOTE_BOUND.format(units=len(values), unit=unit), _method("bound", unit, len(values), len(pairs))
    return RunDifference(len(pairs), len(values), float(values.mean()), low, high, p, method, pairs, note)


def mean_runs(
    values: Mapping[RunKey, float] | Sequence[float], level: float = 0.95, limits: ValueRange | None = None
) -> RunMean:
    """Mean over runs with Student's t interval.

    Args:
        values: Results by (base, draw, seed), averaged within units first as in `paired_runs`; or a sequence of
            independent runs.
        level: Confidence level.
        limits: Range of a possible mean, such as (0, 1) for shares; the interval is cut there.

    Raises:
        UndersongError: There are no runs, or a value is not finite.
    """
    runs = values if isinstance(values, Mapping) else {(0, 0, seed): value for seed, value in enumerate(values)}
    unit, means = unit_means(runs)
    low, high, _, note = _t_inference(means, unit, level, limits)
    method = _method("t", unit, len(means), len(runs))
    return RunMean(len(runs), len(means), float(means.mean()), low, high, method, note)


def crossed_mean(values: ArrayLike, clusters: Sequence[Hashable], level: float = 0.95) -> Interval:
    """Mean of `values` (runs, items) with an interval over clusters of items and over runs, if there are several.

    Every run measures the same items. The half width over clusters, of the items' means over runs, and the half width
    over runs, of the runs' means over items, are squared and added (Zou and Donner 2008). Both hold a part of the
    residual noise, so the interval is a bit too wide rather than too narrow. One run gives the interval over clusters
    alone; with one cluster there is none.

    Raises:
        UndersongError: There are no values, one is not finite, or labels and items differ in number.
    """
    table = np.atleast_2d(np.asarray(values, dtype=np.float64))
    items = clustered_mean(table.mean(axis=0), clusters, level)
    if len(table) == 1 or items.high is None:
        return items
    runs = table.mean(axis=1)
    half_runs = critical_value(level, len(runs) - 1) * float(runs.std(ddof=1)) / sqrt(len(runs))
    half = hypot(items.high - items.value, half_runs)
    return Interval(items.value, items.value - half, items.value + half)


def unit_means(runs: Mapping[RunKey, float]) -> tuple[str, np.ndarray]:
    """Name of the independent unit, and the mean of each unit, (units,)."""
    for key, value in runs.items():
        if not isfinite(value):
            raise UndersongError(f"The result of {_run_name(key)} is {value}, not a number; measure it again.")
    unit, groups = unit_values(runs)
    return unit, np.array([np.mean(group) for group in groups])


def unit_values(runs: Mapping[RunKey, float]) -> tuple[str, list[list[float]]]:
    """Name of the independent unit, and the values of the runs of each unit.

    Units are bases if there are several, else draws, else seeds.
    """
    if not runs:
        raise UndersongError("There are no runs to compare; check the arms and the step.")
    position = next((i for i in range(3) if len({key[i] for key in runs}) > 1), 2)
    groups: dict[int, list[float]] = {}
    for key in sorted(runs):
        groups.setdefault(key[position], []).append(runs[key])
    return KEY_FIELDS[position], list(groups.values())


def _t_inference(
    values: np.ndarray, unit: str, level: float, limits: ValueRange | None
) -> tuple[float | None, float | None, float | None, str]:
    """Lower end, upper end, p value against 0 and a note, from independent `values` (units,)."""
    from scipy import stats

    units = len(values)
    if units == 1:
        return None, None, None, NOTE_SINGLE_UNIT.format(unit=unit)
    # Shares are ratios of counts: a smaller spread is rounding, and would give an interval of width 0.
    if np.ptp(values) < 1e-12:
        return None, None, None, NOTE_EQUAL_UNITS.format(unit=unit, units=units)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / sqrt(units)
    half = critical_value(level, units - 1) * error
    floor, ceiling = limits if limits is not None else (-np.inf, np.inf)
    p = float(2 * stats.t.sf(abs(mean) / error, units - 1))
    return max(floor, mean - half), min(ceiling, mean + half), p, ""


def _bound_inference(value: float, units: int, level: float, limits: ValueRange) -> tuple[float, float, float]:
    """Lower end, upper end and p value against 0 of `units` equal values, for any run noise within the limits."""
    floor, width = limits[0], limits[1] - limits[0]
    shares, edge = np.clip(np.full(units, (value - floor) / width), 0.0, 1.0), -floor / width
    low, high = lower_mean_bound(shares, (1 + level) / 2), upper_mean_bound(shares, (1 + level) / 2)
    p = min(1.0, 2 * min(mean_tail(shares, edge), mean_tail(1 - shares, 1 - edge)))
    return floor + width * low, floor + width * high, p


def _method(test: str, unit: str, units: int, runs: int) -> str:
    return f"{test} over runs" if units == runs else f"{test} over {unit}s, runs averaged within {unit}"


def _run_name(key: RunKey) -> str:
    return ", ".join(f"{field} {value}" for field, value in zip(KEY_FIELDS, key))


NOTE_NO_REPLICATES = (
    "No group has two replicates, so run noise is unknown; train on the same samples with another seed."
)
NOTE_EQUAL_REPLICATES = (
    "All replicates agree exactly: the noise is too small to be seen in so few prompts, and has no interval."
)


@dataclass(frozen=True, slots=True)
class RunNoise:
    """Standard deviation of one run around its group's mean, pooled over groups.

    Attributes:
        groups: Number of groups with replicates.
        runs: Number of runs in them.
        df: Degrees of freedom.
        sd: The standard deviation; None if it cannot be estimated.
        low: Lower end of its chi-squared interval.
        high: Upper end of its chi-squared interval.
        reach: Repeatability limit: the largest difference of two replicates in 95 of 100 pairs, taking `sd` as known.
        note: Reason why a value is missing, else empty.
    """

    groups: int
    runs: int
    df: int
    sd: float | None
    low: float | None
    high: float | None
    reach: float | None
    note: str = ""


def run_noise(groups: Mapping[Any, Sequence[float]], level: float = 0.95) -> RunNoise:
    """Pooled within-group standard deviation of replicates; groups of one run are ignored.

    The interval assumes normal noise of the same size in all groups (Searle, Casella and McCulloch 1992, 4.1). Near a
    rate of 0 or 1 noise is smaller: arms that break are noisier than this, and safe arms less noisy.

    Raises:
        UndersongError: A value is not finite.
    """
    from scipy import stats

    arrays = [np.asarray(values, dtype=np.float64) for values in groups.values() if len(values) > 1]
    for values in arrays:
        if invalid := [value for value in values.tolist() if not isfinite(value)]:
            raise UndersongError(f"The result of a run is {invalid[0]}, not a number; measure it again.")
    df, runs = sum(len(values) - 1 for values in arrays), sum(map(len, arrays))
    if df == 0:
        return RunNoise(0, 0, 0, None, None, None, None, NOTE_NO_REPLICATES)
    squares = float(sum(((values - values.mean()) ** 2).sum() for values in arrays))
    sd = sqrt(squares / df)
    if sd < 1e-12:
        return RunNoise(len(arrays), runs, df, 0.0, None, None, None, NOTE_EQUAL_REPLICATES)
    low, high = (sqrt(squares / stats.chi2.ppf(tail, df)) for tail in ((1 + level) / 2, (1 - level) / 2))
    return RunNoise(len(arrays), runs, df, sd, low, high, float(stats.norm.ppf(0.975)) * sqrt(2) * sd)
