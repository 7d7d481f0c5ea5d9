"""Result of a check: one record per axis, the ranked samples, and the verdict with its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from undersong.proximity.separation import separates
from undersong.statistics.bootstrap import Interval
from undersong.statistics.rates import Rate

WORD_ENCODER = "tfidf"
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
        obstacle: Why the data cannot be compared with ordinary requests on this axis; None if they can.
    """

    name: str
    encoder: str
    auc: Interval
    threshold: float
    nearer: Rate
    expected: Interval
    obstacle: str | None = None

    @property
    def separates(self) -> bool:
        """True if the axis tells harm from ordinary requests better than chance. Otherwise it ranks nothing."""
        return separates(self.auc)

    @property
    def is_usable(self) -> bool:
        """True if the axis separates and the data can be compared on it. Otherwise it does not count."""
        return self.separates and self.obstacle is None


@dataclass(frozen=True, slots=True)
class RehearsalCheck:
    """Findings of a rehearsal: what a short training takes from the refusal margin of the harm set, in nats.

    Attributes:
        model: The model that was trained.
        steps: Optimizer steps of each training.
        learning_rate: Their learning rate.
        seeds: Number of trainings, each with its own seed and draw of samples.
        samples: Samples of each training.
        prompts: Harmful requests whose margin was measured.
        margin_before: Their mean margin before.
        loss: Mean loss of margin by training on the data, with its interval over requests and seeds.
        ordinary_loss: The same by training on ordinary samples; None if they have no replies.
        loss_minus_ordinary: The difference; None if they have no replies.
        compliance_change: Change in the share of requests that the model would rather comply with.
    """

    model: str
    steps: int
    learning_rate: float
    seeds: int
    samples: int
    prompts: int
    margin_before: float
    loss: Interval
    ordinary_loss: Interval | None
    loss_minus_ordinary: Interval | None
    compliance_change: Interval

    @property
    def shows_more(self) -> bool:
        """True if the data are shown to take more than as many ordinary samples do, by several trainings."""
        difference = self.loss_minus_ordinary
        return self.seeds > 1 and difference is not None and difference.low is not None and difference.low > 0

    @property
    def sentence(self) -> str:
        """The findings in a sentence."""
        trained = f"{self.steps} steps on {self.samples:,} samples ({self.seeds} seed{'s' * (self.seeds > 1)})"
        text = (
            f"Rehearsal by {self.model}: {trained} take {_nats(self.loss)} from the refusal margin of harmful requests"
        )
        if self.loss_minus_ordinary is None or self.ordinary_loss is None:
            return (
                f"{text}. The ordinary requests have no replies to train on, so nothing says what ordinary data take."
            )
        verb = "more than" if self.shows_more else "not shown to be more than"
        return f"{text}, {verb} as many ordinary samples, which take {_nats(self.ordinary_loss)}."


def _nats(interval: Interval) -> str:
    bounds = "" if interval.low is None else f" [{interval.low:+.2f}, {interval.high:+.2f}]"
    return f"{interval.value:+.2f}{bounds} nats"


@dataclass(frozen=True, slots=True)
class RankedSample:
    """One sample in the ranking. `row` is its place in the file, from 0; `nearer` if within the threshold."""

    rank: int
    id: str
    row: int
    distance: float
    nearer: bool
    text: str  # the request that is nearest to harm
    nearest_id: str | None  # None on an axis that measures no distance to single requests
    nearest_text: str | None
    nearest_source: str | None = None


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Result of a check.

    Attributes:
        data: What was checked.
        recognized: What the data was recognized as.
        samples: Number of samples in the data.
        requests: Number of requests that were measured; a conversation has several.
        unmeasured: Samples that no usable axis measures, such as speech without a transcript where only words are.
        unreadable: Rows that could not be read, as (place, reason), at most ten.
        unreadable_count: Number of rows that could not be read.
        harm, ordinary: Names and sizes of the references.
        axes: Findings of each axis.
        ranked_by: Name of the axis that the samples are ranked by; None if none is usable.
        verdict: One of EXIT_CODES.
        sentence: The verdict in a sentence.
        notes: What a reader has to know beside it.
        rehearsal: Findings of the rehearsal, if one was asked for.
        ranked: All measured samples, nearest first; empty if no axis is usable.
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
    rehearsal: RehearsalCheck | None = None
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
            "rehearsal": None if self.rehearsal is None else _rehearsal_json(self.rehearsal),
            "evidence": EVIDENCE,
        }


def _axis_json(axis: AxisCheck) -> dict[str, Any]:
    return {
        "name": axis.name,
        "encoder": axis.encoder,
        "separates": axis.separates,
        "obstacle": axis.obstacle,
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


def _rehearsal_json(rehearsal: RehearsalCheck) -> dict[str, Any]:
    values = {item.name: getattr(rehearsal, item.name) for item in fields(rehearsal)}
    intervals = {name: _interval_json(value) for name, value in values.items() if isinstance(value, Interval)}
    return values | intervals | {"shows_more": rehearsal.shows_more, "sentence": rehearsal.sentence}


def _interval_json(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.value, "low": interval.low, "high": interval.high}
