"""Headline data: the base, the worst arm and its counterparts, and the stored comparison that belongs to each pair of
arms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from undersong.pages import formatting
from undersong.report.summary import (
    ArmSummary,
    Estimate,
    VerdictFilter,
    arm_summaries,
    base_runs,
    default_verdict_filter,
    estimate_margin,
    estimate_rate,
    relation,
)
from undersong.results.schema import Results, model_names
from undersong.results.schema_comparisons import ArmComparison, ComparisonRecord, ComparisonSide, MarginComparisonRecord

C = TypeVar("C", bound=ArmComparison)


@dataclass(frozen=True, slots=True)
class ArmCondition:
    """An arm, or the base (`arm` None), under one system prompt."""

    arm: ArmSummary | None
    system: str

    def is_side(self, side: ComparisonSide) -> bool:
        """Return True if the side of a comparison is this arm alone, under the same system prompt."""
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
    return _find_in(results.comparisons, a, b, prompt_set, modality, step)


def _find_in(
    comparisons: Sequence[C], a: ArmCondition, b: ArmCondition, prompt_set: str, modality: str, step: int
) -> C | None:
    has_several_runs = any(side.arm is not None and len(side.arm.runs_at(step)) > 1 for side in (a, b))
    scopes = ("recipe",) if has_several_runs else ("recipe", "model")
    for scope in scopes:
        for comparison in comparisons:
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
    """An arm, the system prompt it is evaluated under, and its rate and refusal margin at its last step."""

    arm: ArmSummary
    system: str
    estimate: Estimate
    margin: Estimate | None = None  # None if it was not measured


@dataclass(frozen=True, slots=True)
class ModelEvidence:
    """Comparisons of an arm's trained models over prompts, each with its base or with itself without a system prompt:
    evidence of these weights alone."""

    comparisons: tuple[ArmComparison, ...]

    @property
    def raised(self) -> int:
        """Number of models with a significantly higher rate."""
        return sum(self._is_significant(row) and (row.difference or 0.0) > 0 for row in self.comparisons)

    @property
    def lowered(self) -> int:
        """Number of models with a significantly lower rate."""
        return sum(self._is_significant(row) and (row.difference or 0.0) < 0 for row in self.comparisons)

    @property
    def relation(self) -> str | None:
        """'higher' or 'lower' if that is shown of every model, else None."""
        count = len(self.comparisons)
        return "higher" if count and self.raised == count else "lower" if count and self.lowered == count else None

    @staticmethod
    def _is_significant(row: ArmComparison) -> bool:
        p = row.p if row.p_adjusted is None else row.p_adjusted
        return p is not None and p < 0.05


@dataclass(frozen=True, slots=True)
class HeadlineData:
    """Rates behind the verdict of the report, for prompts in one modality.

    `worst` is the arm with the highest mean at its last step. `others` are its random and distant counterparts.
    `prompted` is the worst arm under every other system prompt.
    """

    results: Results
    verdict_filter: VerdictFilter
    model: str
    modality: str  # of the prompts: audio | text
    base: Estimate | None
    worst: ArmMeasurement | None
    counterparts: tuple[ArmMeasurement, ...]
    system_variants: tuple[ArmMeasurement, ...]
    measurements: tuple[ArmMeasurement, ...]  # every arm
    base_margin: Estimate | None = None  # None if it was not measured

    @property
    def n_arms(self) -> int:
        """Number of arms that were given prompts of this modality at their last step."""
        return len(self.measurements)

    @property
    def tied(self) -> bool:
        """True if there are several arms and all have the same mean, so that none is the worst."""
        return self.n_arms > 1 and len({item.estimate.mean for item in self.measurements}) == 1

    def comparison_to_base(self, item: ArmMeasurement) -> ComparisonRecord | None:
        """Return the comparison of an arm with the base, under the arm's system prompt; None if the results lack it."""
        return self._find_comparison(item, ArmCondition(None, item.system))

    def margin_comparison_to_base(self, item: ArmMeasurement) -> MarginComparisonRecord | None:
        """Return the comparison of an arm's refusal margin with the base's; None if the results lack it."""
        sides = ArmCondition(item.arm, item.system), ArmCondition(None, item.system)
        prompt_set, step = self.verdict_filter.prompt_set, item.arm.last_step
        return _find_in(self.results.margin_comparisons, *sides, prompt_set, self.modality, step)

    def model_evidence(self, item: ArmMeasurement) -> ModelEvidence:
        """Return the comparisons of the arm's models with their base over prompts."""
        return self._evidence(self.results.comparisons, ArmCondition(None, item.system), item)

    def margin_evidence(self, item: ArmMeasurement) -> ModelEvidence:
        """Return the comparisons of the refusal margins of the arm's models with their base over prompts."""
        return self._evidence(self.results.margin_comparisons, ArmCondition(None, item.system), item)

    def system_evidence(self, item: ArmMeasurement) -> ModelEvidence:
        """Return the comparisons of the arm's models under a system prompt with themselves without it."""
        return self._evidence(self.results.comparisons, ArmCondition(item.arm, self.verdict_filter.system), item)

    def _evidence(
        self, comparisons: Sequence[ArmComparison], before: ArmCondition, item: ArmMeasurement
    ) -> ModelEvidence:
        tuned = ArmCondition(item.arm, item.system)
        place = ("model", self.verdict_filter.prompt_set, self.modality, item.arm.last_step)
        return ModelEvidence(
            tuple(
                row
                for row in comparisons
                if (row.scope, row.prompt_set, row.modality, row.step) == place
                and before.is_side(row.a)
                and tuned.is_side(row.b)
            )
        )

    def relation_to_base(self, item: ArmMeasurement) -> str:
        """How an arm compares with the base: over runs, or where these do not decide, in every one of its models."""
        if self.base is None:
            return "unknown"
        over_runs = relation(item.estimate, self.base, self.comparison_to_base(item))
        if over_runs in ("higher", "lower"):
            return over_runs
        return self.model_evidence(item).relation or over_runs

    def comparison_to(self, item: ArmMeasurement, other: ArmMeasurement) -> ComparisonRecord | None:
        """Return the comparison of two arms, each under its own system prompt; None if the results lack it."""
        return self._find_comparison(item, ArmCondition(other.arm, other.system))

    def _find_comparison(self, item: ArmMeasurement, other: ArmCondition) -> ComparisonRecord | None:
        condition = ArmCondition(item.arm, item.system)
        return find_comparison(
            self.results, condition, other, self.verdict_filter.prompt_set, self.modality, item.arm.last_step
        )


def headline_data(results: Results) -> HeadlineData | None:
    """Return the headline data of the modality with the higher worst JSR; None without harmful prompts."""
    headlines = headline_data_by_modality(results)
    return headlines[0] if headlines else None


def headline_data_by_modality(results: Results) -> list[HeadlineData]:
    """Return the headline data for spoken and typed prompts, the modality with the higher worst JSR first.

    Modalities that were not measured are left out. On a tie, spoken prompts come first.
    """
    verdict_filter = default_verdict_filter(results)
    if verdict_filter is None:
        return []
    modalities = [m for m in ("audio", "text") if any(verdict_filter.run_rates([run], m) for run in results.runs)]
    headlines = [_headline_data(results, verdict_filter, modality) for modality in modalities or ["text"]]
    return sorted(headlines, key=lambda headline: -headline.worst.estimate.mean if headline.worst else 0.0)


def results_of_model(results: Results, model: str) -> Results:
    """Return the results of one of several models: its runs, and the comparisons that are of it alone."""

    def own(comparisons: Sequence[C]) -> list[C]:
        return [row for row in comparisons if row.scope == "model" and row.model == model]

    update = {
        "study": results.study.model_copy(update={"models": [model]}),
        "runs": [run for run in results.runs if run.model == model],
        "defended_runs": [run for run in results.defended_runs if run.model == model],
        "comparisons": own(results.comparisons),
        "margin_comparisons": own(results.margin_comparisons),
        "marginal_effects": [effect for effect in results.marginal_effects if effect.model == model],
    }
    return results.model_copy(update=update)


def headline_data_by_model(results: Results, modality: str) -> list[HeadlineData]:
    """Return the headline data of each model by itself, on prompts of one modality; empty for a single model."""
    names = model_names(results)
    if len(names) < 2:
        return []
    by_model = [headline_data_by_modality(results_of_model(results, name)) for name in names]
    return [data for headlines in by_model for data in headlines if data.modality == modality]


def _headline_data(results: Results, verdict_filter: VerdictFilter, modality: str) -> HeadlineData:
    estimates = [
        (arm, estimate_rate(verdict_filter.run_rates(arm.runs_at(arm.last_step), modality)))
        for arm in arm_summaries(results)
    ]
    measurements = [
        ArmMeasurement(
            arm,
            verdict_filter.system,
            rate_estimate,
            estimate_margin(verdict_filter.run_margins(arm.runs_at(arm.last_step), modality)),
        )
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
        base_margin=estimate_margin(verdict_filter.run_margins(base_runs(results), modality)),
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
