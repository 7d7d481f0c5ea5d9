"""Comparisons of recipes in results.json: contrasts paired over runs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple, TypeVar

from undersong.evaluation.rates import Metric
from undersong.research.statistics.mixed_model import fit_mixed_model
from undersong.results.schema import PromptSetRate, RunResult, identity_hash
from undersong.results.schema_comparisons import (
    ComparisonRecord,
    ComparisonSide,
    DoseComparisonRecord,
    MarginComparisonRecord,
    MixedModelRecord,
    PairedRunDifference,
    RandomEffectRecord,
)
from undersong.results.schema_mechanism import LateGapComparison, LateSuppression
from undersong.statistics.multiple_testing import holm
from undersong.statistics.run_bounds import RunBounds, bound_change_from_base, prompt_interval, run_mean_p
from undersong.statistics.runs import RunDifference, paired_runs
from undersong.study.results.contrasts import NO_PRIMARY, Contrast, ContrastArm, PrimaryPlan, RunKey, all_contrasts
from undersong.study.results.prompt_outcomes import NO_OUTCOMES, PromptEndpoint, PromptOutcomes

T = TypeVar("T", ComparisonRecord, MarginComparisonRecord, DoseComparisonRecord, LateGapComparison, LateSuppression)
NOTE_CLUSTERS = "Every cluster of prompts counts the same here, whatever its number of prompts."
V = TypeVar("V")
C = TypeVar("C", ComparisonRecord, MarginComparisonRecord, DoseComparisonRecord)


def recipe_comparisons(
    runs: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    last_step: int,
    primary: PrimaryPlan = NO_PRIMARY,
    outcomes: PromptOutcomes = NO_OUTCOMES,
) -> list[ComparisonRecord]:
    """Return the recipe comparisons of a study on harmful prompts.

    The primary questions are Holm-corrected as a family of their own, and so are all others, which are exploratory.

    Args:
        runs: Runs of one study, on all bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        last_step: Training step at which arms are compared.
        primary: The primary questions.
        outcomes: Outcomes of single prompts, so that mixed models have prompts as a random effect, too.
    """
    return adjust_by_family(
        [
            _recipe_comparison(question, last_step, outcomes)
            for question in recipe_questions(runs, plain, defense_system, last_step, primary)
        ]
    )


class RecipeQuestion(NamedTuple):
    """A contrast on one prompt set in one modality, and whether the study declared it as primary."""

    contrast: Contrast
    set_name: str
    modality: str
    is_primary: bool


def recipe_questions(
    runs: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    last_step: int,
    primary: PrimaryPlan = NO_PRIMARY,
) -> list[RecipeQuestion]:
    """Return all questions about recipes that the runs on harmful prompts can answer.

    Args:
        runs: Runs of one study, on all bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        last_step: Training step at which arms are compared.
        primary: The primary questions.
    """
    tuned = tuned_runs(runs, last_step)
    bases = [run for run in runs if run.kind == "base"]
    asked = [
        (contrast, name, modality)
        for name, modality in harmful_prompts(tuned)
        for contrast in all_contrasts(tuned, bases, plain, defense_system, primary)
        if contrast.a.subtracted is not None or contrast.a.rates(name, modality)
    ]
    primary_places = primary.choose(asked)
    return [RecipeQuestion(*question, place in primary_places) for place, question in enumerate(asked)]


def adjust_by_family(comparisons: Sequence[C]) -> list[C]:
    """Adjust the p values of the primary comparisons together, and those of the exploratory ones together."""
    adjusted = {
        comparison.id: comparison
        for family in ("primary", "exploratory")
        for comparison in adjust_p_values([row for row in comparisons if row.family == family])
    }
    return [adjusted[comparison.id] for comparison in comparisons]


def adjust_p_values(comparisons: Sequence[T]) -> list[T]:
    """Set `p_adjusted` by Holm's method over all of these together: one family."""
    adjusted = holm([comparison.p for comparison in comparisons])
    return [
        comparison.model_copy(update={"p_adjusted": p_adjusted})
        for comparison, p_adjusted in zip(comparisons, adjusted)
    ]


def tuned_runs(runs: Iterable[RunResult], last_step: int) -> list[RunResult]:
    """The runs of tuned arms at the last step."""
    return [run for run in runs if run.kind != "base" and run.step == last_step]


def harmful_prompts(runs: Iterable[RunResult]) -> list[tuple[str, str]]:
    """Return the sorted (prompt set, modality) of all harmful prompts that any of the runs was evaluated on."""
    return sorted({(rate.prompt_set, rate.modality) for run in runs for rate in run.rates if rate.harmful})


def harm_metric(runs: Iterable[RunResult]) -> Metric:
    """The name of the runs' rate on harmful prompts; all of a study have one judge."""
    return next((rate.metric for run in runs for rate in run.rates if rate.harmful), "jsr")


def _recipe_comparison(asked: RecipeQuestion, step: int, outcomes: PromptOutcomes) -> ComparisonRecord:
    (_, _, a, b), set_name, modality, _ = asked
    if a.labels["kind"] == "base":  # no mixed model, for changes from a base are not normal
        difference, mixed_model = _change_from_base(a, b, set_name, modality), None
    else:
        difference = paired_runs(a.rates(set_name, modality), b.rates(set_name, modality), limits=a.limits)
        mixed_model = comparison_model(asked, "rate", difference, outcomes, a.limits)
    fields = recipe_fields(asked, harm_metric(b.runs), step, difference)
    return ComparisonRecord(**fields, mixed_model=mixed_model)


def recipe_fields(
    asked: RecipeQuestion, metric: str, step: int, difference: RunDifference, note: str = ""
) -> dict[str, Any]:
    """Return the fields of a comparison over runs that are the same for every endpoint.

    Args:
        asked: The question.
        metric: The endpoint.
        step: Training step at which the arms are compared.
        difference: Their difference over runs.
        note: A further note.
    """
    (_, question, a, b), set_name, modality, is_primary = asked
    sides = recipe_sides(a, b)
    return {
        "id": recipe_question_id(a, b, set_name, modality, metric),
        "scope": "recipe",
        "family": "primary" if is_primary else "exploratory",
        "question": question,
        "a": sides[0],
        "b": sides[1],
        "prompt_set": set_name,
        "modality": modality,
        "step": step,
        "metric": metric,
        "estimates": paired_differences(difference),
        "n": difference.n,
        "difference": difference.difference,
        "low": difference.low,
        "high": difference.high,
        "p": difference.p,
        "method": difference.method,
        "note": " ".join(filter(None, (difference.note, note))) or None,
    }


def comparison_model(
    asked: RecipeQuestion,
    endpoint: PromptEndpoint,
    difference: RunDifference,
    outcomes: PromptOutcomes,
    limits: tuple[float, float] | None,
) -> MixedModelRecord | None:
    """Mixed model of the paired differences: bases, draws that kept other samples, seeds, and prompts if known.

    Args:
        asked: The question.
        endpoint: The endpoint.
        difference: Its answer run by run.
        outcomes: Outcomes of single prompts.
        limits: Range of a possible difference; None if there is none.
    """
    _, _, a, b = asked.contrast
    selections = [side.selection_hashes for side in (a, b) if side.labels["kind"] != "base"]
    keys = [(pair.base, pair.draw, pair.seed) for pair in difference.estimates]
    levels: dict[str, list[Any]] = {
        "base": [base for base, _, _ in keys],
        "draw": [tuple(hashes.get(key) for hashes in selections) for key in keys],
    }
    by_cluster = _cluster_differences(asked, endpoint, keys, outcomes)
    return mixed_model_record(levels, [pair.difference for pair in difference.estimates], limits, by_cluster)


def _cluster_differences(
    asked: RecipeQuestion, endpoint: PromptEndpoint, keys: Sequence[RunKey], outcomes: PromptOutcomes
) -> list[list[float]] | None:
    """Difference of each cluster of prompts in each run; None unless all runs were given the same known prompts."""
    (_, _, a, b), set_name, modality, _ = asked
    before, after = (side.cluster_means(outcomes, endpoint, set_name, modality) for side in (a, b))
    if a.labels["kind"] == "base":
        before = own_base(before, keys)
    if not keys or any(key not in before or key not in after for key in keys):
        return None
    names = list(after[keys[0]])
    if any(side[key].keys() != after[keys[0]].keys() for side in (before, after) for key in keys):
        return None
    return [[after[key][name] - before[key][name] for name in names] for key in keys]


def own_base(by_run: Mapping[RunKey, V], keys: Iterable[RunKey]) -> dict[RunKey, V]:
    """Return the value of each run's own base, for the runs whose base has one."""
    by_base = {key[0]: value for key, value in by_run.items()}
    return {key: by_base[key[0]] for key in keys if key[0] in by_base}


def mixed_model_record(
    levels: Mapping[str, Sequence[Any]],
    differences: Sequence[float],
    limits: tuple[float, float] | None,
    by_cluster: Sequence[Sequence[float]] | None = None,
) -> MixedModelRecord | None:
    """Fit a mixed model of differences run by run; None if nothing but their runs varies.

    Args:
        levels: Label of each run by the name of the level, the outermost first.
        differences: Difference of each run.
        limits: Range of a possible difference; None if there is none.
        by_cluster: Difference of each cluster of prompts in each run, if known.
    """
    model = fit_mixed_model(levels, differences if by_cluster is None else by_cluster, limits=limits)
    if model is None:
        return None
    is_reweighted = by_cluster is not None and any(
        abs(fmean(row) - difference) > 1e-9 for row, difference in zip(by_cluster, differences)
    )
    note = " ".join(filter(None, (model.note, NOTE_CLUSTERS if is_reweighted and model.mean is not None else "")))
    return MixedModelRecord(
        runs=model.runs,
        difference=model.mean,
        low=model.low,
        high=model.high,
        effects=[RandomEffectRecord(name=part.name, groups=part.groups, sd=part.sd) for part in model.effects],
        note=note or None,
    )


def _change_from_base(base: ContrastArm, tuned: ContrastArm, set_name: str, modality: str) -> RunDifference:
    """The change of the JSR from the base, bounded for any run noise.

    A base has no run noise, so the changes of an arm that does nothing on average are not symmetric, and Student's t
    does not hold: where few trainings break, most studies see none of them.
    """
    rates = {run.run_key: run.find_rate(set_name, modality, tuned.system) for run in tuned.runs}
    after = {key: rate for key, rate in rates.items() if rate is not None}
    by_base = {run.base_seed: run.find_rate(set_name, modality, base.system) for run in base.runs}
    before = {key: rate for key in after if (rate := by_base.get(key[0])) is not None}
    plain = paired_runs(
        {key: rate.rate for key, rate in before.items()}, {key: rate.rate for key, rate in after.items()}
    )

    def bounds_at(confidence: float) -> RunBounds:
        was, ends = ({key: _ends_at(rate, confidence) for key, rate in side.items()} for side in (before, after))
        return bound_change_from_base(was, ends, confidence)

    if plain.units < 2:
        return plain
    bounds = bounds_at(0.975)
    method = plain.method.replace("paired t", "bound for any run noise")
    return replace(plain, low=bounds.low, high=bounds.high, p=run_mean_p(bounds_at, 0.0), method=method, note="")


def _ends_at(rate: PromptSetRate, confidence: float) -> tuple[float, float]:
    if rate.low is None or rate.high is None:
        return rate.rate, rate.rate
    return prompt_interval(rate.rate, rate.low, rate.high, rate.n, rate.clusters, confidence)


def recipe_question_id(a: ContrastArm, b: ContrastArm, set_name: str, modality: str, metric: str) -> str:
    """Identify the question of a contrast, without the step: studies of other lengths ask the same question.

    Args:
        a: The side that is subtracted.
        b: The other side.
        set_name: Name of the harmful prompt set.
        modality: Modality of the prompts.
        metric: Metric of the rates.
    """
    sides = side_identity(*recipe_sides(a, b))
    return identity_hash(["recipe", *sides, set_name, modality, metric])


def recipe_sides(a: ContrastArm, b: ContrastArm) -> tuple[ComparisonSide, ComparisonSide]:
    """Return both sides of a contrast as records of results.json."""
    return _recipe_side(a, b), _recipe_side(b, a)


def _recipe_side(side: ContrastArm, other: ContrastArm) -> ComparisonSide:
    minus_arm = None if side.subtracted is None else side.subtracted.runs[0].arm
    return ComparisonSide(arm=side.runs[0].arm, minus_arm=minus_arm, system=side.system, label=side.label(other))


def side_identity(*sides: ComparisonSide) -> list[str | None]:
    """Return what identifies the sides of a comparison: arm, subtracted arm and system prompt of each."""
    return [part for side in sides for part in (side.arm, side.minus_arm, side.system)]


def paired_differences(difference: RunDifference) -> list[PairedRunDifference]:
    """Return the differences run by run as records of results.json."""
    return [
        PairedRunDifference(base_seed=e.base, draw=e.draw, seed=e.seed, a=e.a, b=e.b, difference=e.difference)
        for e in difference.estimates
    ]
