"""Headline data: the base, the worst arm and its counterparts, and the stored comparison that belongs to each pair of
arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.report import formatting
from undersong.report.summary import (
    ArmSummary,
    Estimate,
    VerdictFilter,
    arm_summaries,
    base_runs,
    default_verdict_filter,
    estimate_rate,
)
from undersong.results.schema import Results, model_names
from undersong.results.schema_outcomes import ComparisonRecord, ComparisonSide


@dataclass(frozen=True, slots=True)
class ArmCondition:
    """An arm, or the base (`arm` None), under one system prompt."""

    arm: ArmSummary | None
    system: str

    def is_side(self, side: ComparisonSide) -> bool:
        """Whether a side of a comparison is this arm under this system prompt, and no difference of two arms."""
        name = "base" if self.arm is None else self.arm.name
        return (side.arm, side.minus_arm, side.system) == (name, None, self.system)


def find_comparison(
    results: Results,
    a: ArmCondition,
    b: ArmCondition,
    prompt_set: str,
    modality: str,
    step: int,
) -> ComparisonRecord | None:
    """Find the comparison of two arms, its numbers turned to a - b; recipe scope first.

    Args:
        results: of the study.
        a: the arm that the other is taken from.
        b: the other arm.
        prompt_set: a harmful set.
        modality: of the prompts.
        step: the last one.

    Returns:
        None where the results do not compare them.  A comparison of scope `model` is about one run, so it decides only
        for arms that have no other.
    """
    has_several_runs = any(side.arm is not None and len(side.arm.runs_at(step)) > 1 for side in (a, b))
    scopes = ("recipe",) if has_several_runs else ("recipe", "model")
    for scope in scopes:
        for comparison in results.comparisons:
            asked = (comparison.scope, comparison.prompt_set, comparison.modality, comparison.step)
            if asked != (scope, prompt_set, modality, step):
                continue
            if a.is_side(comparison.a) and b.is_side(comparison.b):
                return comparison.with_minuend("a")
            if a.is_side(comparison.b) and b.is_side(comparison.a):
                return comparison.with_minuend("b")
    return None


@dataclass(frozen=True, slots=True)
class ArmMeasurement:
    """An arm, the system text it is asked under, and its estimate at its last step."""

    arm: ArmSummary
    system: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class HeadlineData:
    """`worst` is the arm with the highest mean at its last step; `others` its random and distant counterparts;
    `prompted` the worst arm again under every other system text."""

    results: Results
    verdict_filter: VerdictFilter
    model: str
    modality: str  # of the prompts: audio | text
    base: Estimate | None
    worst: ArmMeasurement | None
    counterparts: tuple[ArmMeasurement, ...]
    system_variants: tuple[ArmMeasurement, ...]
    measurements: tuple[ArmMeasurement, ...]  # every arm

    @property
    def n_arms(self) -> int:
        """How many arms were asked prompts of this modality at their last step."""
        return len(self.measurements)

    @property
    def tied(self) -> bool:
        """Whether all of several arms have the same mean, so that none is the worst."""
        return self.n_arms > 1 and len({item.estimate.mean for item in self.measurements}) == 1

    def comparison_to_base(self, item: ArmMeasurement) -> ComparisonRecord | None:
        """The arm less the base, under the arm's system text; None where the results do not compare them."""
        return self._find_comparison(item, ArmCondition(None, item.system))

    def comparison_to(self, item: ArmMeasurement, other: ArmMeasurement) -> ComparisonRecord | None:
        """The first less the second, each under its own system text; None where the results do not compare them."""
        return self._find_comparison(item, ArmCondition(other.arm, other.system))

    def _find_comparison(self, item: ArmMeasurement, other: ArmCondition) -> ComparisonRecord | None:
        condition = ArmCondition(item.arm, item.system)
        return find_comparison(
            self.results, condition, other, self.verdict_filter.prompt_set, self.modality, item.arm.last_step
        )


def headline_data(results: Results) -> HeadlineData | None:
    """The case of the prompts, spoken or typed, that fare worse; None where no harmful one was asked."""
    headlines = headline_data_by_modality(results)
    return headlines[0] if headlines else None


def headline_data_by_modality(results: Results) -> list[HeadlineData]:
    """Of spoken and of typed prompts, where asked; the one with the higher worst JSR first, spoken on a tie."""
    verdict_filter = default_verdict_filter(results)
    if verdict_filter is None:
        return []
    modalities = [m for m in ("audio", "text") if any(verdict_filter.run_rates([run], m) for run in results.runs)]
    headlines = [_headline_data(results, verdict_filter, modality) for modality in modalities or ["text"]]
    return sorted(headlines, key=lambda headline: -headline.worst.estimate.mean if headline.worst else 0.0)


def _headline_data(results: Results, verdict_filter: VerdictFilter, modality: str) -> HeadlineData:
    estimates = [
        (arm, estimate_rate(verdict_filter.run_rates(arm.runs_at(arm.last_step), modality)))
        for arm in arm_summaries(results)
    ]
    measurements = [
        ArmMeasurement(arm, verdict_filter.system, rate_estimate)
        for arm, rate_estimate in estimates
        if rate_estimate is not None
    ]
    worst = max(measurements, key=lambda item: item.estimate.mean) if measurements else None
    return HeadlineData(
        results=results,
        verdict_filter=verdict_filter,
        model=formatting.join_items(model_names(results)) or "the model",
        modality=modality,
        base=estimate_rate(verdict_filter.run_rates(base_runs(results), modality)),
        worst=worst,
        counterparts=_counterparts(worst, measurements),
        system_variants=_system_prompt_variants(verdict_filter, worst, modality),
        measurements=tuple(measurements),
    )


def _counterparts(worst: ArmMeasurement | None, measurements: Sequence[ArmMeasurement]) -> tuple[ArmMeasurement, ...]:
    """The random and the distant arm nearest in design to the worst one."""
    if worst is None:
        return ()

    def similarity(item: ArmMeasurement) -> tuple[bool, bool, bool]:
        a, b = item.arm, worst.arm
        return a.train_modality == b.train_modality, a.axis == b.axis, a.fraction == b.fraction

    by_kind = ([item for item in measurements if item.arm.kind == kind] for kind in ("random", "distant"))
    return tuple(max(items, key=similarity) for items in by_kind if items and worst not in items)


def _system_prompt_variants(
    verdict_filter: VerdictFilter, worst: ArmMeasurement | None, modality: str
) -> tuple[ArmMeasurement, ...]:
    if worst is None:
        return ()
    runs = worst.arm.runs_at(worst.arm.last_step)
    systems = dict.fromkeys(
        row.system for run in runs for row in run.rates if row.prompt_set == verdict_filter.prompt_set
    )
    estimates = [
        (name, estimate_rate(verdict_filter.run_rates(runs, modality, name)))
        for name in systems
        if name != verdict_filter.system
    ]
    return tuple(
        ArmMeasurement(worst.arm, name, rate_estimate) for name, rate_estimate in estimates if rate_estimate is not None
    )
