"""Comparisons of the refusal margin in results.json: recipes over runs, and adapters over prompts.

The margin still ranks models where all replies agree, so that the JSR cannot. It is an endpoint of its own: its p
values are corrected apart from those of the JSR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from undersong.results.schema import RunResult, identity_hash
from undersong.results.schema_comparisons import ComparisonRecord, MarginComparisonRecord
from undersong.statistics.rates import clustered_mean, clustered_mean_p
from undersong.statistics.runs import paired_runs
from undersong.study.results.comparisons import (
    RecipeQuestion,
    adjust_by_family,
    comparison_model,
    own_base,
    recipe_fields,
    recipe_questions,
    side_identity,
)
from undersong.study.results.contrasts import NO_PRIMARY, PrimaryPlan, RatesByRun
from undersong.study.results.model_comparisons import pair_side_verdicts
from undersong.study.results.prompt_outcomes import NO_OUTCOMES, PromptOutcomes
from undersong.types import Verdict

METRIC: Literal["refusal_margin"] = "refusal_margin"


def recipe_margin_comparisons(
    runs: Sequence[RunResult],
    plain: str,
    defense_system: str | None,
    last_step: int,
    primary: PrimaryPlan = NO_PRIMARY,
    outcomes: PromptOutcomes = NO_OUTCOMES,
) -> list[MarginComparisonRecord]:
    """Return the recipe comparisons of a study by the refusal margin, for the questions that the JSR answers.

    The change from a base has Student's t interval too: a margin has no smallest and largest value, so there is no
    bound for any run noise as the JSR has it.

    Args:
        runs: Runs of one study, on all bases.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt used as a defense, or None.
        last_step: Training step at which arms are compared.
        primary: The primary questions.
        outcomes: Outcomes of single prompts, so that mixed models have prompts as a random effect.
    """
    questions = recipe_questions(runs, plain, defense_system, last_step, primary)
    comparisons = [_recipe_margin_comparison(question, last_step, outcomes) for question in questions]
    return adjust_by_family([comparison for comparison in comparisons if comparison is not None])


def _recipe_margin_comparison(
    asked: RecipeQuestion, step: int, outcomes: PromptOutcomes
) -> MarginComparisonRecord | None:
    (_, _, a, b), set_name, modality, _ = asked

    def margin(run: RunResult, system: str) -> float | None:
        rate = run.find_rate(set_name, modality, system)
        return None if rate is None else rate.refusal_margin

    before, after = a.values(margin), b.values(margin)
    if a.labels["kind"] == "base":
        before = own_base(before, after)
    shared = before.keys() & after.keys()
    if not shared:
        return None
    before, after = ({key: side[key] for key in shared} for side in (before, after))
    difference = paired_runs(before, after)
    return MarginComparisonRecord(
        **recipe_fields(asked, METRIC, step, difference, _left_out_note(b.rates(set_name, modality), shared)),
        mixed_model=comparison_model(asked, METRIC, difference, outcomes, None),
    )


def _left_out_note(measured: RatesByRun, shared: set[tuple[int, int, int]]) -> str:
    """Say how many runs have a rate and are not compared by their margin; empty if none."""
    missing = len(measured.keys() - shared)
    if not missing:
        return ""
    return f"{missing} of {len(measured)} runs are left out, because they or their partners have no refusal margin."


def model_margin_comparison(
    comparison: ComparisonRecord, before: Sequence[Verdict], after: Sequence[Verdict]
) -> MarginComparisonRecord | None:
    """Compare the refusal margins of the two sides of a model comparison, prompt by prompt, clustered by behavior.

    Args:
        comparison: The comparison of the same sides by their JSR.
        before: Verdicts of side a.
        after: Verdicts of side b.

    Returns:
        The comparison, or None if a prompt has no margin on one of the sides.
    """
    sides = comparison.a, comparison.b
    verdict_pairs = pair_side_verdicts(sides, before, after, comparison.prompt_set, comparison.modality)
    margins = verdict_pairs.margins
    if not margins or len(margins) < len(verdict_pairs.by_prompt):
        return None
    changes, clusters = [after - before for before, after, _ in margins], [cluster for _, _, cluster in margins]
    interval = clustered_mean(changes, clusters)
    run_identity = comparison.model, comparison.b.seed, comparison.b.draw, comparison.step
    return MarginComparisonRecord(
        id=identity_hash(
            ["model", *side_identity(*sides), comparison.prompt_set, comparison.modality, METRIC, *run_identity]
        ),
        scope="model",
        question=comparison.question,
        a=comparison.a,
        b=comparison.b,
        prompt_set=comparison.prompt_set,
        modality=comparison.modality,
        step=comparison.step,
        model=comparison.model,
        n=len(changes),
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        p=clustered_mean_p(changes, clusters),
        method=f"t over {len(set(clusters))} clusters",
    )
