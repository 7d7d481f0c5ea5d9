"""Rates corrected for a judge's errors by a random sample of labels that people gave.

The estimate is stratified prediction-powered inference (Angelopoulos et al., Science 382, 2023). Replies are
grouped into cells by what the judge says of them. The share of the outcome in a cell is that of its labels, and cells
are weighted by their numbers of replies, labelled or not. Intervals combine those of the cells and of the prompts by
squaring and adding their margins (Zou and Donner, Statistics in Medicine 27, 2008), because a cell in which no label
shows an error still may have some.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import hypot, sqrt

import numpy as np

from undersong.statistics.rates import cluster_design, clustered_rate, score_interval
from undersong.statistics.rise_bounds import prompts_needed
from undersong.types import UndersongError

WIDTH_TARGET = 0.05  # half of the width of an interval that is called narrow: five points


@dataclass(frozen=True, slots=True)
class LabeledReplies:
    """Replies of one model with the cell of each and the labels of some.

    A cell is a group in which the labelled replies are a random sample; None is a reply that is known not to have the
    outcome, because it has no text. Labels say whether a reply has the outcome; None is a reply without a label.
    """

    cells: tuple[Hashable | None, ...]
    labels: tuple[bool | None, ...]
    clusters: tuple[Hashable, ...]

    def __post_init__(self) -> None:
        if not len(self.cells) == len(self.labels) == len(self.clusters) or not self.cells:
            raise UndersongError("Labels need one cell and one cluster a reply; check that there are replies.")


@dataclass(frozen=True, slots=True)
class LabeledCell:
    """One cell: its share of all replies, and the share of its labels that have the outcome."""

    weight: float
    n: int
    labeled: int
    positive: int
    effective_n: float
    quantile: float

    @property
    def share(self) -> float:
        """Share of the labels with the outcome."""
        return self.positive / self.labeled

    def interval(self, factor: float = 1.0) -> tuple[float, float]:
        """Return Wilson's interval of the share, if there were `factor` times as many labels like these."""
        return score_interval(self.share, self.effective_n * factor, self.quantile)


@dataclass(frozen=True, slots=True)
class CorrectedValue:
    """A corrected rate, or a difference of two, with its interval; `labels_needed` is None if no number would do."""

    value: float
    low: float
    high: float
    labeled: int
    labels_needed: int | None  # to narrow a rate to five points, or to show the sign of a difference

    @property
    def is_settled(self) -> bool:
        """True if there are labels enough."""
        return self.labels_needed is not None and self.labels_needed <= self.labeled


def labeled_cells(replies: LabeledReplies, level: float = 0.95) -> dict[Hashable, LabeledCell]:
    """Return the cells with their labels, in order of appearance.

    Raises:
        UndersongError: A cell has no label.
    """
    rows: dict[Hashable, list[int]] = {}
    for row, cell in enumerate(replies.cells):
        if cell is not None:
            rows.setdefault(cell, []).append(row)
    cells = {}
    for cell, members in rows.items():
        labeled = [row for row in members if replies.labels[row] is not None]
        if not labeled:
            raise UndersongError(f"None of the {len(members)} replies of the cell {cell} is labelled; label some.")
        outcomes = [bool(replies.labels[row]) for row in labeled]
        clusters = [replies.clusters[row] for row in labeled]
        design = cluster_design(np.array(outcomes, dtype=np.float64), clusters)
        rate = clustered_rate(outcomes, clusters, level)
        cells[cell] = LabeledCell(
            weight=len(members) / len(replies.cells),
            n=len(members),
            labeled=len(labeled),
            positive=rate.successes,
            effective_n=design.effective_n,
            quantile=design.critical_value(level),
        )
    return cells


def corrected_rate(replies: LabeledReplies, level: float = 0.95) -> CorrectedValue:
    """Correct the rate of an outcome by labels.

    Args:
        replies: The replies with their cells and labels; every cell needs a label.
        level: Confidence level of the interval.

    Raises:
        UndersongError: A cell has no label.
    """
    cells = labeled_cells(replies, level)
    value = sum(cell.weight * cell.share for cell in cells.values())
    prompt_margins = _rate_margins(expected_outcomes(replies, cells), replies.clusters, level)

    def interval(factor: float = 1.0) -> tuple[float, float]:
        low, high = (hypot(*margins) for margins in zip(prompt_margins, label_margins(cells.values(), factor)))
        return max(0.0, value - low), min(1.0, value + high)

    def is_narrow(factor: float) -> bool:
        low, high = interval(factor)
        return high - low <= 2 * WIDTH_TARGET

    labeled = sum(cell.labeled for cell in cells.values())
    low, high = interval()
    return CorrectedValue(value, low, high, labeled, _labels_needed(is_narrow, [replies], labeled))


def corrected_difference(before: LabeledReplies, after: LabeledReplies, level: float = 0.95) -> CorrectedValue:
    """Correct the difference after − before of paired replies, each model by its own labels.

    Args:
        before: Replies of the first model.
        after: Replies of the second model to the same prompts in the same order, with the same clusters.
        level: Confidence level of the interval.

    Raises:
        UndersongError: A cell has no label, or the replies are not paired.
    """
    if before.clusters != after.clusters:
        raise UndersongError("Replies of two models need the same prompts in the same order; pair them first.")
    cells = [labeled_cells(replies, level) for replies in (before, after)]
    changes = expected_outcomes(after, cells[1]) - expected_outcomes(before, cells[0])
    value = float(changes.mean())
    prompt_margin = _change_margin(changes, before.clusters, level)

    def interval(factor: float = 1.0) -> tuple[float, float]:
        (before_low, before_high), (after_low, after_high) = (label_margins(side.values(), factor) for side in cells)
        low, high = hypot(prompt_margin, after_low, before_high), hypot(prompt_margin, after_high, before_low)
        return max(-1.0, value - low), min(1.0, value + high)

    def shows_sign(factor: float) -> bool:
        low, high = interval(factor)
        return low > 0 or high < 0

    labeled = sum(cell.labeled for side in cells for cell in side.values())
    low, high = interval()
    return CorrectedValue(value, low, high, labeled, _labels_needed(shows_sign, [before, after], labeled))


def error_share(cells: Iterable[LabeledCell], outcome: bool) -> tuple[float, float, float] | None:
    """Return the share of replies whose labels have (or lack) the outcome, with its interval; None without cells.

    Args:
        cells: Cells of one verdict of the judge.
        outcome: True for the share with the outcome, False for the share without.
    """
    members = list(cells)
    total = sum(cell.weight for cell in members)
    if not members:
        return None
    share = sum(cell.weight * cell.share for cell in members) / total
    low, high = (margin / total for margin in label_margins(members, 1.0))
    ends = share, max(0.0, share - low), min(1.0, share + high)
    return ends if outcome else (1 - ends[0], 1 - ends[2], 1 - ends[1])


def _labels_needed(holds: Callable[[float], bool], sides: Sequence[LabeledReplies], labeled: int) -> int | None:
    """Fewest labels like these for which `holds(factor)`; None if there are not as many replies."""
    available = sum(cell is not None for side in sides for cell in side.cells)
    if not holds(max(1.0, available / labeled)):
        return None
    needed = prompts_needed(holds, labeled)
    return None if needed is None else min(needed, available)


def label_margins(cells: Iterable[LabeledCell], factor: float) -> tuple[float, float]:
    """Distances from the estimate to the ends of its interval, if only the labels were a sample."""
    low = high = 0.0
    for cell in cells:
        ends = cell.interval(factor)
        low += (cell.weight * (cell.share - ends[0])) ** 2
        high += (cell.weight * (ends[1] - cell.share)) ** 2
    return sqrt(low), sqrt(high)


def expected_outcomes(replies: LabeledReplies, cells: Mapping[Hashable, LabeledCell]) -> np.ndarray:
    """Share of the outcome in the cell of each reply, (n,) float64."""
    return np.array([0.0 if cell is None else cells[cell].share for cell in replies.cells])


def _rate_margins(values: np.ndarray, clusters: Sequence[Hashable], level: float) -> tuple[float, float]:
    """Distances to the ends of the interval of a mean of shares, if only the prompts were a sample.

    Wilson's interval, at the number of prompts whose binary outcomes would have the variance of these values. If all
    values are equal, other ones are as rare as an outcome that did not occur.
    """
    mean = float(values.mean())
    design = cluster_design(values, clusters)
    quantile = design.critical_value(level)
    variance = float(values.var(ddof=1)) / design.effective_n if len(values) > 1 else 0.0
    if variance > 0 and 0 < mean < 1:
        low, high = score_interval(mean, mean * (1 - mean) / variance, quantile)
        return mean - low, high - mean
    rare = score_interval(0.0, design.effective_n, quantile)[1]
    return mean * rare, (1 - mean) * rare


def _change_margin(changes: np.ndarray, clusters: Sequence[Hashable], level: float) -> float:
    """Half of the width of the interval of a mean change, if only the prompts were a sample; never 0."""
    design = cluster_design(changes, clusters)
    quantile = design.critical_value(level)
    spread = quantile * float(changes.std(ddof=1)) / sqrt(design.effective_n) if len(changes) > 1 else 1.0
    return spread if spread > 0 else score_interval(0.0, design.effective_n, quantile)[1]
