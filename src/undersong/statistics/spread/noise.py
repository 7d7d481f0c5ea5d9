"""Run noise: how far runs differ that were told to do the same.  Knows groups of numbers; does not know runs.

Trainings on the very same samples with other seeds are replicates; their spread is the floor below which a difference
of two runs means nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any

import numpy as np

from undersong.types import UndersongError

NOTE_NO_REPLICATES = (
    "No group has two replicates, so run noise is unknown; train on the same samples with another seed."
)
NOTE_EQUAL_REPLICATES = (
    "All replicates agree exactly: the noise is too small to be seen in so few prompts, and has no interval."
)


@dataclass(frozen=True, slots=True)
class RunNoise:
    """Standard deviation `sd` of one run around its group's mean, pooled over `groups` with `df` degrees of freedom.

    `low` and `high`: its chi-squared interval.  `reach`: what two replicates differ by at most, in 95 of 100 pairs;
    with `sd` known, as a rule of thumb.  None where it cannot be estimated; `note` then says why (else empty).
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
    """Pooled within-group standard deviation of replicates; groups of one run count for nothing.

    The interval supposes normal noise of one size in all groups (Searle, Casella and McCulloch 1992, 4.1): near a rate
    of 0 or 1 noise is smaller, so arms that break are noisier than this and safe ones quieter.
    Raises UndersongError for a value that is not finite.
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
