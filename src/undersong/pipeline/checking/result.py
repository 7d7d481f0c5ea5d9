"""Result of a check: one record per axis, the ranked samples, and the verdict with its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from undersong.statistics import Interval, Rate

NO_MORE, MORE, CANNOT_TELL = "no more than ordinary", "more than ordinary", "cannot tell"
EXIT_CODES = {NO_MORE: 0, MORE: 1, CANNOT_TELL: 3}
EVIDENCE = (
    "Nearness is a ranking and not proof of harm: over 36 data sets on each of 12 small models, the screening score by "
    "words had a rank correlation of .41 [.34, .49] with the damage by training, the share of related requests .39, "
    "and influence, which needs the model, .56."
)  # docs/results/prediction.md


@dataclass(frozen=True, slots=True)
class AxisCheck:
    """Findings of one axis on the data.

    Attributes:
        name: Name of the axis.
        encoder: Encoder of the axis.
        auc: How well the axis tells held-out harm from ordinary requests; 0.5 is chance.
        threshold: Distance within which `ordinary_share` of the ordinary requests lie.
        nearer: Share of the data's requests within that distance, with its interval over clusters.
        expected: How many of as many ordinary requests would be, with a prediction interval.
    """

    name: str
    encoder: str
    auc: Interval
    threshold: float
    nearer: Rate
    expected: Interval

    @property
    def separates(self) -> bool:
        """True if the axis tells harm from ordinary requests better than chance. Otherwise it ranks nothing."""
        return self.auc.low is not None and self.auc.low > 0.5


@dataclass(frozen=True, slots=True)
class RankedSample:
    """One sample in the ranking. `row` is its place in the file, from 0; `nearer` if within the threshold."""

    rank: int
    id: str
    row: int
    distance: float
    nearer: bool
    text: str  # the request that is nearest to harm
    nearest_id: str
    nearest_text: str
    nearest_source: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a check.

    Attributes:
        data: What was checked.
        recognized: What the data was recognized as.
        samples: Number of samples in the data.
        requests: Number of requests that were measured; a conversation has several.
        unmeasured: Samples that no axis measures: without a text, or spoken and not transcribed.
        unreadable: Rows that could not be read, as (place, reason), at most ten.
        unreadable_count: Number of rows that could not be read.
        harm, ordinary: Names and sizes of the references.
        axes: Findings of each axis.
        ranked_by: Name of the axis that the samples are ranked by; None if no axis separates.
        verdict: One of EXIT_CODES.
        sentence: The verdict in a sentence.
        notes: What a reader has to know beside it.
        ranked: All measured samples, nearest first; empty if no axis separates.
    """

    data: str
    recognized: str
    samples: int
    requests: int
    unmeasured: int
    unreadable: tuple[tuple[str, str], ...]
    unreadable_count: int
    harm: Mapping[str, int]
    ordinary: Mapping[str, int]
    axes: tuple[AxisCheck, ...]
    ranked_by: str | None
    verdict: str
    sentence: str
    notes: tuple[str, ...]
    ranked: tuple[RankedSample, ...] = field(repr=False, default=())

    @property
    def exit_code(self) -> int:
        """0: no more than ordinary; 1: more; 3: cannot tell."""
        return EXIT_CODES[self.verdict]

    @property
    def flagged_rows(self) -> tuple[int, ...]:
        """Rows of the samples that lie within the threshold."""
        return tuple(sample.row for sample in self.ranked if sample.nearer)

    def to_json(self) -> dict[str, Any]:
        """The content of `check.json`: everything but the ranking."""
        return {
            "data": self.data,
            "recognized": self.recognized,
            "samples": self.samples,
            "requests": self.requests,
            "unmeasured": self.unmeasured,
            "unreadable": {"count": self.unreadable_count, "first": [list(item) for item in self.unreadable]},
            "harm": dict(self.harm),
            "ordinary": dict(self.ordinary),
            "axes": [_axis_json(axis) for axis in self.axes],
            "ranked_by": self.ranked_by,
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "sentence": self.sentence,
            "notes": list(self.notes),
            "evidence": EVIDENCE,
        }


def _axis_json(axis: AxisCheck) -> dict[str, Any]:
    return {
        "name": axis.name,
        "encoder": axis.encoder,
        "separates": axis.separates,
        "auc": _interval_json(axis.auc),
        "threshold": axis.threshold,
        "nearer": {
            "count": axis.nearer.successes,
            "requests": axis.nearer.n,
            "clusters": axis.nearer.clusters,
            "share": axis.nearer.rate,
            "low": axis.nearer.low,
            "high": axis.nearer.high,
            "design_effect": axis.nearer.design_effect,
        },
        "expected": _interval_json(axis.expected),
    }


def _interval_json(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
