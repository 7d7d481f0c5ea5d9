"""One-sided bounds for the rise of a rate whose judge is corrected by labels, for gates with a limit.

The estimate is the one of `judge_correction`. The interval there takes the mean change of the prompts as normal, which
is wrong where few prompts changed. A gate decides on such cases, so the prompts' part comes from the exact limits of
`rise_bounds` here. They take the effective number of prompts whose binary changes would vary like the expected ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot

import numpy as np

from undersong.statistics.judge_correction import (
    LabeledReplies,
    expected_outcomes,
    label_margins,
    labeled_cells,
)
from undersong.statistics.rates import ClusterDesign, cluster_design
from undersong.statistics.rise_bounds import RiseEstimate, estimate_rise
from undersong.types import UndersongError


@dataclass(frozen=True)
class CorrectedRise:
    """Change of a corrected rate on the same prompts; make it with `estimate_corrected_rise`."""

    before: LabeledReplies
    after: LabeledReplies
    rates: tuple[float, float]  # corrected, before and after
    prompts: RiseEstimate  # of the expected changes, as if every reply were labelled

    @property
    def rise(self) -> float:
        """Corrected rate after minus corrected rate before, in [-1, 1]."""
        return self.prompts.rise

    @property
    def design(self) -> ClusterDesign:
        """Cluster design of the expected changes."""
        return self.prompts.design

    def upper_bound(self, confidence: float, label_factor: float = 1.0) -> float:
        """Upper confidence bound of the rise, if there were `label_factor` times as many labels like these."""
        (before_low, _), (_, after_high) = self._label_margins(confidence, label_factor)
        margin = self.prompts.upper_bound(confidence) - self.rise
        return min(1.0, self.rise + hypot(margin, after_high, before_low))

    def lower_bound(self, confidence: float, label_factor: float = 1.0) -> float:
        """Lower confidence bound of the rise, if there were `label_factor` times as many labels like these."""
        (_, before_high), (after_low, _) = self._label_margins(confidence, label_factor)
        margin = self.rise - self.prompts.lower_bound(confidence)
        return max(-1.0, self.rise - hypot(margin, after_low, before_high))

    def _label_margins(self, confidence: float, factor: float) -> tuple[tuple[float, float], tuple[float, float]]:
        level = 2 * confidence - 1  # the ends of a two-sided interval at this level are one-sided bounds
        before, after = (label_margins(labeled_cells(s, level).values(), factor) for s in (self.before, self.after))
        return before, after


def estimate_corrected_rise(before: LabeledReplies, after: LabeledReplies) -> CorrectedRise:
    """Estimate the rise of a corrected rate, each model by its own labels.

    Args:
        before: Replies of the first model.
        after: Replies of the second model to the same prompts in the same order, with the same clusters.

    Raises:
        UndersongError: A cell has no label, or the replies are not paired.
    """
    if before.clusters != after.clusters:
        raise UndersongError("Replies of two models need the same prompts in the same order; pair them first.")
    outcomes = [expected_outcomes(replies, labeled_cells(replies)) for replies in (before, after)]
    rates = float(outcomes[0].mean()), float(outcomes[1].mean())
    return CorrectedRise(before, after, rates, _estimate_expected_rise(outcomes[1] - outcomes[0], before))


def _estimate_expected_rise(changes: np.ndarray, replies: LabeledReplies) -> RiseEstimate:
    """Estimate the rise from changes (n,) in [-1, 1] that may be fractions."""
    sizes = estimate_rise(np.zeros(len(changes)), np.zeros(len(changes)), replies.clusters)
    up, down = float(np.maximum(changes, 0).mean()), float(np.maximum(-changes, 0).mean())
    design = cluster_design(changes, replies.clusters)
    variance = float(changes.var())
    # Changes of -1, 0 and 1 with these means would vary most. Fewer of them would vary like the mean of these ones.
    gain = max(1.0, (up + down - (up - down) ** 2) / variance) if variance > 0 else 1.0
    return RiseEstimate(
        up,
        down,
        sizes.effective_clusters * gain,
        replace(design, design_effect=design.design_effect / gain),
    )
