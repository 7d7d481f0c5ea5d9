"""Headline data: the base, the worst arm and its counterparts, and the stored comparison that belongs to each pair of
arms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

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
from undersong.results.schema import ComparisonRecord, Results, model_names

_IDENTITY_FIELDS = ("arm", "kind", "axis", "fraction", "train_modality", "system")


@dataclass(frozen=True, slots=True)
class ArmCondition:
    """An arm, or the base (`arm` None), under one system text."""

    arm: ArmSummary | None
    system: str

    def matches(self, stored: Mapping[str, Any]) -> bool:
        """Whether a comparison's side can be this one: it names an arm or a kind, and nothing in it contradicts.

        A side without either names its arm by its label.
        """
        identity: dict[str, Any] = {"arm": "base", "kind": "base", "system": self.system}
        if self.arm is not None:
            identity |= {field: getattr(self.arm, field) for field in ("kind", "axis", "fraction", "train_modality")}
            identity["arm"] = self.arm.name
        stored_identity = {field: stored[field] for field in _IDENTITY_FIELDS if stored.get(field) is not None}
        if "arm" not in stored_identity and "kind" not in stored_identity:
            stored_identity["arm"] = stored.get("label")
        return all(value == identity.get(field) for field, value in stored_identity.items())


def find_comparison(
    results: Results, a: ArmCondition, b: ArmCondition, set: str, modality: str, step: int
) -> ComparisonRecord | None:
    """The comparison of a with b on this set, its numbers turned to a - b; recipe scope first.

    One of scope `model` is about one run, so it decides only for arms that have no other.
    """
    has_several_runs = any(side.arm is not None and len(side.arm.runs_at(step)) > 1 for side in (a, b))
    for comparison in sorted(results.comparisons, key=lambda item: item.scope != "recipe"):
        scope_pairs = zip((comparison.set, comparison.modality, comparison.step), (set, modality, step), strict=True)
        if any(stored not in (None, requested) for stored, requested in scope_pairs):
            continue
        if has_several_runs and comparison.scope != "recipe":
            continue
        if comparison.metric not in ("jsr", "non_refusal_rate") or not _system_prompts_match(comparison, a, b):
            continue
        if a.matches(comparison.a) and b.matches(comparison.b):
            return comparison if comparison.minuend == "a" else _negated(comparison)
        if a.matches(comparison.b) and b.matches(comparison.a):
            return comparison if comparison.minuend == "b" else _negated(comparison)
    return None


def _system_prompts_match(comparison: ComparisonRecord, a: ArmCondition, b: ArmCondition) -> bool:
    """A comparison across system texts says so on its sides; any other is within one system text."""
    if a.system != b.system:
        return {comparison.a.get("system"), comparison.b.get("system")} == {a.system, b.system}
    return comparison.system in (None, a.system)


def _negated(comparison: ComparisonRecord) -> ComparisonRecord:
    def negate(value: float | None) -> float | None:
        return None if value is None else -value

    return comparison.model_copy(
        update={
            "difference": negate(comparison.difference),
            "low": negate(comparison.high),
            "high": negate(comparison.low),
        }
    )


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
            self.results, condition, other, self.verdict_filter.set, self.modality, item.arm.last_step
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
    systems = dict.fromkeys(row.system for run in runs for row in run.sets if row.set == verdict_filter.set)
    estimates = [
        (name, estimate_rate(verdict_filter.run_rates(runs, modality, name)))
        for name in systems
        if name != verdict_filter.system
    ]
    return tuple(
        ArmMeasurement(worst.arm, name, rate_estimate) for name, rate_estimate in estimates if rate_estimate is not None
    )
