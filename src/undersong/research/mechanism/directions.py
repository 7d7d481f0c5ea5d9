"""Refusal directions by difference in means per layer (Arditi et al. 2024), and the gap between harmful and benign
prompts along them. Arrays only, no models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from undersong.types import UndersongError


@dataclass(frozen=True)
class RefusalDirection:
    """Refusal direction of each layer.

    Projections are scaled so that the fitting split's harmful mean is +1 and its benign mean -1.

    Attributes:
        unit: Unit vectors, (layers, dim).
        midpoint: Midpoint of both means along the unit vector, (layers,).
        half_distance: Half the distance between the means, (layers,).
    """

    unit: np.ndarray
    midpoint: np.ndarray
    half_distance: np.ndarray

    def project(self, states: np.ndarray) -> np.ndarray:
        """Projections (layers, prompts) of states (layers, prompts, dim); NaN if the layer has no direction."""
        along = np.einsum("lnd,ld->ln", states.astype(np.float64), self.unit)
        with np.errstate(invalid="ignore", divide="ignore"):
            return (along - self.midpoint[:, None]) / self.half_distance[:, None]

    def cosine(self, other: RefusalDirection) -> np.ndarray:
        """Cosine (layers,) with another direction of the same layers; NaN if either is missing."""
        return np.einsum("ld,ld->l", self.unit, other.unit)


def fit_direction(harmful: np.ndarray, benign: np.ndarray) -> RefusalDirection:
    """Fit the direction of each layer from hidden states (layers, prompts, dim) of two contrast sets, in float64.

    A layer with equal means (the decoder's input at an identical last token) has no direction: NaN.

    Raises:
        UndersongError: A contrast set is empty or has states that are not finite.
    """
    for name, states in (("harmful", harmful), ("benign", benign)):
        if states.shape[1] == 0:
            raise UndersongError(f"The {name} contrast set is empty; give prompts of both kinds.")
        if not np.isfinite(states).all():
            raise UndersongError(
                f"The {name} contrast set has hidden states that are not finite; check the model's dtype."
            )
    mean_harmful, mean_benign = (s.mean(axis=1, dtype=np.float64) for s in (harmful, benign))
    difference = mean_harmful - mean_benign
    length = np.linalg.norm(difference, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        unit = difference / np.where(length > 0, length, np.nan)[:, None]
    midpoint = np.einsum("ld,ld->l", (mean_harmful + mean_benign) / 2, unit)
    return RefusalDirection(unit, midpoint, np.where(length > 0, length / 2, np.nan))


@dataclass(frozen=True)
class GapCurve:
    """Refusal gap of each layer, (layers,): mean projection of both kinds, their difference, and a 95 % interval.

    The interval is over clusters. Each cluster counts once, however many prompts it has.
    """

    harmful: np.ndarray
    benign: np.ndarray
    gap: np.ndarray
    low: np.ndarray
    high: np.ndarray


def _cluster_means(projections: np.ndarray, clusters: Sequence[str]) -> np.ndarray:
    """Means (layers, clusters) of projections (layers, prompts): prompts of one behavior are one unit."""
    names, index = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.zeros((len(names), projections.shape[0]))
    np.add.at(sums, index, projections.T)
    return sums.T / np.bincount(index)


def gap_curve(
    harmful: np.ndarray,
    benign: np.ndarray,
    harmful_clusters: Sequence[str],
    benign_clusters: Sequence[str],
    rng: np.random.Generator,
    draws: int = 2000,
) -> GapCurve:
    """Refusal gap of each layer, bootstrapped over clusters of both kinds.

    Args:
        harmful: Projections of held-out harmful prompts, (layers, prompts).
        benign: Projections of held-out benign prompts, (layers, prompts).
        harmful_clusters: Cluster of each harmful prompt.
        benign_clusters: Cluster of each benign prompt.
        rng: Generator of the bootstrap.
        draws: Number of bootstrap draws.
    """
    a, b = _cluster_means(harmful, harmful_clusters), _cluster_means(benign, benign_clusters)
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    return GapCurve(mean_a, mean_b, mean_a - mean_b, *_difference_interval(a, b, rng, draws))


def _difference_interval(
    a: np.ndarray, b: np.ndarray, rng: np.random.Generator, draws: int
) -> tuple[np.ndarray, np.ndarray]:
    """95 % bootstrap interval (layers,) of mean a - mean b, both (layers, clusters).

    NaN if either has only one cluster: resampling one unit shows no noise, and would give an interval of width 0.
    """
    if min(a.shape[1], b.shape[1]) < 2:
        return np.full(len(a), np.nan), np.full(len(a), np.nan)
    low, high = np.percentile(_bootstrap_means(a, rng, draws) - _bootstrap_means(b, rng, draws), [2.5, 97.5], axis=0)
    return low, high


def _bootstrap_means(values: np.ndarray, rng: np.random.Generator, draws: int) -> np.ndarray:
    """Bootstrap means (draws, layers) of values (layers, clusters)."""
    clusters = values.shape[1]
    times_drawn = rng.multinomial(clusters, np.full(clusters, 1 / clusters), size=draws)
    with np.errstate(invalid="ignore"):  # a layer without a direction stays NaN
        return times_drawn @ values.T / clusters


def late_layers(layer_count: int) -> slice:
    """Last quarter of the decoder's layers (at least one), as a slice of arrays that start with the input."""
    return slice(layer_count + 1 - max(1, layer_count // 4), layer_count + 1)


def late_gap_change(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    clusters: tuple[Sequence[str], Sequence[str]],
    rng: np.random.Generator,
    draws: int = 2000,
) -> tuple[float, float, float]:
    """Change of the late gap (after - before), averaged over the last quarter of layers, with a 95 % interval.

    Args:
        before: (harmful, benign) projections (layers + 1, prompts) of held-out prompts.
        after: Projections of the *same* prompts, so that the bootstrap resamples clusters of paired changes.
        clusters: Cluster of each harmful and each benign prompt.
        rng: Generator of the bootstrap.
        draws: Number of bootstrap draws.

    Returns:
        Change, low and high; NaN where `gap_curve` has NaN.
    """
    late_slice = late_layers(before[0].shape[0] - 1)
    changes = [
        _cluster_means((a - b)[late_slice].mean(axis=0, keepdims=True), names)
        for a, b, names in zip(after, before, clusters)
    ]
    low, high = _difference_interval(changes[0], changes[1], rng, draws)
    return float(changes[0].mean() - changes[1].mean()), float(low[0]), float(high[0])


def late_gap_p_value(
    projections: tuple[np.ndarray, np.ndarray], clusters: tuple[Sequence[str], Sequence[str]]
) -> float:
    """Two-sided p value of "harmful and benign prompts are equal in the last quarter of layers" (Welch 1947).

    `projections` (layers + 1, prompts) of both kinds may also be their changes. Each cluster is one value, and the
    kinds may have different variances. NaN if a kind has fewer than two clusters, or nothing varies.
    """
    late_slice = late_layers(projections[0].shape[0] - 1)
    return _welch_p_value(
        [_cluster_means(c[late_slice].mean(axis=0, keepdims=True), names)[0] for c, names in zip(projections, clusters)]
    )


MIN_CONTRAST_LAYERS = 6  # two layers in each third


def early_and_late_thirds(layer_count: int) -> tuple[slice, slice] | None:
    """First and last third of the decoder's layers, as slices of arrays that start with the input.

    The input is in neither. None if the decoder has fewer than `MIN_CONTRAST_LAYERS` layers: late could not be told
    from early.
    """
    if layer_count < MIN_CONTRAST_LAYERS:
        return None
    size = layer_count // 3
    return slice(1, 1 + size), slice(layer_count + 1 - size, layer_count + 1)


@dataclass(frozen=True)
class LateMinusEarly:
    """Change of the refusal gap in the last third of layers minus that in the first third.

    Below 0: the late gap fell more than the early gap did. The interval (95 %) and the p value (Welch) are over
    clusters; NaN where `gap_curve` has NaN.
    """

    early: float
    late: float
    difference: float
    low: float
    high: float
    p_value: float


def late_minus_early(
    before: tuple[np.ndarray, np.ndarray],
    after: tuple[np.ndarray, np.ndarray],
    clusters: tuple[Sequence[str], Sequence[str]],
    rng: np.random.Generator,
    draws: int = 2000,
) -> LateMinusEarly | None:
    """Contrast late with early layers in the change of the gap; None if the decoder is too shallow.

    Args:
        before: (harmful, benign) projections (layers + 1, prompts) of held-out prompts.
        after: Projections of the same prompts.
        clusters: Cluster of each harmful and each benign prompt.
        rng: Generator of the bootstrap.
        draws: Number of bootstrap draws.
    """
    thirds = early_and_late_thirds(before[0].shape[0] - 1)
    if thirds is None:
        return None
    # (early, late) x clusters, of harmful and of benign prompts
    changes = [
        _cluster_means(np.stack([(a - b)[third].mean(axis=0) for third in thirds]), names)
        for a, b, names in zip(after, before, clusters)
    ]
    early, late = changes[0].mean(axis=1) - changes[1].mean(axis=1)
    contrasts = [change[1:] - change[:1] for change in changes]
    low, high = _difference_interval(contrasts[0], contrasts[1], rng, draws)
    return LateMinusEarly(
        float(early),
        float(late),
        float(late - early),
        float(low[0]),
        float(high[0]),
        _welch_p_value([contrast[0] for contrast in contrasts]),
    )


def _welch_p_value(cluster_means: Sequence[np.ndarray]) -> float:
    """Two-sided p value of equal means; NaN if a side has fewer than two clusters, or nothing varies."""
    from scipy.stats import ttest_ind

    if min(map(len, cluster_means)) < 2 or not (np.ptp(cluster_means[0]) or np.ptp(cluster_means[1])):
        return float("nan")
    return float(ttest_ind(*cluster_means, equal_var=False).pvalue)


def save_direction(direction: RefusalDirection, path: Path) -> None:
    """Write a direction to a safetensors file with the float64 tensors `unit`, `middle` and `half`."""
    from safetensors.numpy import save_file

    save_file({"unit": direction.unit, "middle": direction.midpoint, "half": direction.half_distance}, path)


def load_direction(path: Path) -> RefusalDirection:
    """Read a file that `save_direction` wrote."""
    from safetensors.numpy import load_file

    tensors = load_file(path)
    return RefusalDirection(tensors["unit"], tensors["middle"], tensors["half"])
