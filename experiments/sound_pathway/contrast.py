"""The analysis, stated before the bases that it is about were measured on test.  Knows numbers; runs nothing.

*One contrast*, within base: JSR after the 25 % of the pool that is closest in words (`semantic`, TF-IDF) minus JSR after
the 25 % closest in sound (`acoustic`, log-mel), on spoken requests, trained on speech, mean over three runs and over the
curve (10, 20 and 40 steps: at a single one bases are easily all at the floor or at the ceiling).  A variant's estimate
is the mean over its bases, with a t interval; bases are the sample.  *Three comparisons* of the contrast between
variants (Welch's t over bases, Holm over those made): `COMPARISONS`.  Secondary, a family of its own, with the same
comparisons: trained on speech minus trained on text, on the samples closest in words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from statistics import fmean, stdev

AXIS, MODALITY = "semantic - acoustic", "speech - text"
# contrast -> (axis, trained on) of its two sides; the contrast is the first minus the second
SIDES = {
    AXIS: (("semantic", "audio"), ("acoustic", "audio")),
    MODALITY: (("semantic", "audio"), ("semantic", "text")),
}
COMPARISONS = (
    ("continuous-keep", "continuous-discard", "a projector that keeps voice against one that discards it"),
    ("continuous-keep", "codes", "continuous features against discrete codes"),
    ("both", "codes", "codes with continuous features added against codes alone"),
)
LEVEL = 0.95
WANTED = 0.1  # a difference of contrasts that is worth finding: what `plan` names a number of units for
LEAST = 5


@dataclass(frozen=True)
class Run:
    """JSR on spoken requests at one step of a fine-tuning; `base` counts a variant's accepted bases from 1."""

    variant: str
    base: int
    axis: str
    trained_on: str
    seed: int
    step: int
    jsr: float


@dataclass(frozen=True)
class Estimate:
    """Mean over `n` bases; no interval where bases cannot show their spread."""

    n: int
    mean: float
    low: float | None
    high: float | None
    sd: float | None


@dataclass(frozen=True)
class Comparison:
    """First variant minus second: Welch's t over bases, or paired t over seeds (then `pairs` counts them)."""

    first: str
    second: str
    question: str
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_adjusted: float | None = None
    pairs: int | None = None


def within_base(runs: Sequence[Run], contrast: str) -> dict[str, dict[int, float]]:
    """variant -> base -> the contrast, mean over seeds and steps; both sides of a base must have the same of both."""
    out: dict[str, dict[int, float]] = {}
    for variant, base in sorted({(run.variant, run.base) for run in runs}):
        sides = [
            {
                (r.seed, r.step): r.jsr
                for r in runs
                if (r.variant, r.base, r.axis, r.trained_on) == (variant, base, *side)
            }
            for side in SIDES[contrast]
        ]
        if not all(sides):
            continue  # pilots are not trained on text
        if sides[0].keys() != sides[1].keys():
            raise SystemExit(
                f"base {base} of {variant} has runs (seed, step) {sorted(sides[0])} and {sorted(sides[1])}"
            )
        out.setdefault(variant, {})[base] = fmean(sides[0][run] - sides[1][run] for run in sides[0])
    return out


def estimate(values: Sequence[float]) -> Estimate:
    """Student's t over bases, as everywhere in undersong."""
    from undersong.statistics.runs import mean_runs

    found = mean_runs(list(values), LEVEL, limits=(-1.0, 1.0))
    spread = stdev(values) if len(values) > 1 else None
    return Estimate(len(values), found.mean, found.low, found.high, spread)


def welch(first: Sequence[float], second: Sequence[float]) -> tuple[float, float | None, float | None, float | None]:
    """Difference of means, its interval (Welch-Satterthwaite) and p; no interval where neither side varies."""
    from scipy.stats import ttest_ind

    difference = fmean(first) - fmean(second)
    if min(len(first), len(second)) < 2 or not stdev(first) + stdev(second) > 1e-12:
        return difference, None, None, None
    found = ttest_ind(first, second, equal_var=False)
    low, high = found.confidence_interval(LEVEL)
    return difference, float(low), float(high), float(found.pvalue)


def compare(by_variant: Mapping[str, Mapping[int, float]]) -> list[Comparison]:
    """The stated comparisons of variants that are there, Holm over them."""
    from dataclasses import replace

    from undersong.statistics.multiple_testing import holm

    found = [
        Comparison(first, second, question, *welch(list(by_variant[first].values()), list(by_variant[second].values())))
        for first, second, question in COMPARISONS
        if first in by_variant and second in by_variant
    ]
    return [replace(one, p_adjusted=p) for one, p in zip(found, holm([one.p for one in found]))]


def compare_by_seed(
    by_variant: Mapping[str, Mapping[int, float]], seeds: Mapping[tuple[str, int], int]
) -> list[Comparison]:
    """The stated comparisons over pairs of bases that start from one language model, Holm over them.

    This was not fixed in advance. All variants of a seed share their language model, which Welch's test does not use.
    A seed counts if both variants have an accepted base of it.

    Args:
        by_variant: The contrast by variant and base.
        seeds: Seed of each accepted base, by variant and base.
    """
    from dataclasses import replace

    from undersong.statistics.multiple_testing import holm
    from undersong.statistics.runs import paired_runs

    by_seed = {
        variant: {(seeds[variant, base], 0, 0): value for base, value in bases.items()}
        for variant, bases in by_variant.items()
    }
    found = []
    for first, second, question in COMPARISONS:
        a, b = by_seed.get(second, {}), by_seed.get(first, {})
        if common := a.keys() & b.keys():
            one = paired_runs({key: a[key] for key in common}, {key: b[key] for key in common}, LEVEL)
            found.append(Comparison(first, second, question, one.difference, one.low, one.high, one.p, pairs=one.n))
    return [replace(one, p_adjusted=p) for one, p in zip(found, holm([one.p for one in found]))]


def difference_sd(by_variant: Mapping[str, Mapping[int, float]]) -> float | None:
    """Spread of the difference between a base of one variant and a base of another: variances pooled over variants by
    their degrees of freedom, times root 2.  None where no variant has two bases."""
    groups = [list(values.values()) for values in by_variant.values() if len(values) > 1]
    if not groups:
        return None
    freedom = sum(len(group) - 1 for group in groups)
    return sqrt(2 * sum((len(group) - 1) * stdev(group) ** 2 for group in groups) / freedom)


def bases_asked(sd: float, wanted: float = WANTED) -> int | None:
    """What `undersong plan --run-sd` would ask for: bases a variant that show `wanted` with 80 % power, corrected."""
    from undersong.statistics.power import units_needed

    return units_needed(wanted, sd, comparisons=len(COMPARISONS))


def can_detect(sd: float, bases: int) -> float | None:
    """The smallest difference that many bases a variant show with 80 % power, corrected."""
    from undersong.statistics.power import detectable_difference

    return detectable_difference(bases, sd, comparisons=len(COMPARISONS))
