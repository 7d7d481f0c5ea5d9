"""Statistical power of a study's design: independent units and detectable differences per contrast. Loads no model."""

from __future__ import annotations

from undersong.results.schema import RunResult
from undersong.stages.black_box_models import trainable_models
from undersong.statistics.power import detectable_difference, units_needed
from undersong.study.arm_selection import arm_rules
from undersong.study.results.contrasts import Contrast, PrimaryPlan, all_contrasts
from undersong.study.schema import Study

STANDARD_DEVIATIONS = (0.02, 0.05, 0.1, 0.2)  # standard deviations of paired JSR differences in a plan
TARGET_DIFFERENCE = 0.1  # difference for which the needed number of units is given


def design_lines(study: Study, standard_deviation: float | None = None) -> list[str]:
    """Lines about the power of a study's design.

    They give the number of independent units per contrast, the smallest JSR difference detected with 80 % power, and
    the number of units needed for 10 points, for the primary questions and for all others. The table has one row per
    standard deviation of paired differences, because none is known before the first run: of `standard_deviation`, or of
    several typical ones. Empty if all models are black boxes, because nothing is trained. Two published trainings on
    nearly the same selection differed by 35 points (docs/results/paper.md), so a standard deviation of .2 is realistic.
    """
    if not trainable_models(study.models):
        return []
    if not arm_rules(study):
        return ["Design: nothing is trained, so no arms are compared; a rate's interval is over its prompts."]
    if (rule := study.tuning.sequential_seeds) is not None:
        return [
            f"Design: seeds are added one at a time from {rule.first} to at most {rule.last}, until {rule.contrast} is "
            f"{rule.stop.replace('|', ' or ')}; counts and costs are for {rule.last} seeds."
        ]
    unit, units = independent_units(study)
    primary = study.primary_questions
    primary_size = max(1, len(primary))
    family_size = max(1, count_recipe_contrasts(study) - len(primary))
    declared = ", ".join(primary) + ("" if study.analysis.primary else ", for none is declared in analysis.primary")
    summary = (
        f"{units} independent {unit}{'s' if units > 1 else ''} a contrast; {len(primary)} primary "
        f"({declared}), {family_size} exploratory"
    )
    if units < 2:
        return [
            f"Design: {summary}. One unit shows no run noise, so there is no interval and no test; add seeds, draws or "
            "bases."
        ]
    heads = (
        "SD of paired differences",
        "primary",
        "exploratory",
        *(f"{unit}s for {100 * TARGET_DIFFERENCE:g} points, {name}" for name in ("primary", "exploratory")),
    )
    rows: list[tuple[str, ...]] = [heads]
    for sd in STANDARD_DEVIATIONS if standard_deviation is None else (standard_deviation,):
        sizes = primary_size, family_size
        differences = (_format_points(detectable_difference(units, sd, comparisons=size)) for size in sizes)
        needed = (units_needed(TARGET_DIFFERENCE, sd, comparisons=size) for size in sizes)
        rows.append((f"{100 * sd:g} points", *differences, *(str(count or "more than 10,000") for count in needed)))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        f"Design: {summary}. Smallest JSR difference between two trained arms shown with 80 % power, each family "
        "corrected by itself:",
        *("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows),
    ]


def independent_units(study: Study) -> tuple[str, int]:
    """Outermost of base, draw and seed that takes several values (`statistics.runs`), and their number."""
    tuning = study.tuning
    parts = {"base": len(trainable_models(study.models)), "draw": len(set(tuning.draws)), "seed": len(tuning.seeds)}
    return next(((name, count) for name, count in parts.items() if count > 1), ("seed", parts["seed"]))


def count_recipe_contrasts(study: Study) -> int:
    """Return the number of recipe comparisons in the results, primary and exploratory."""
    evaluated_sets = sum(prompt_set.harmful for prompt_set in study.prompt_sets.values()) * len(
        study.evaluation.modalities
    )
    return evaluated_sets * len(study_contrasts(study))


def study_contrasts(study: Study) -> list[Contrast]:
    """Contrasts of recipes that the results will have on each harmful prompt set and modality of prompts."""
    arms = [
        RunResult(
            arm=f"{rule.label}/{modality}",
            model="",
            base_seed=0,
            axis=rule.axis,
            fraction=float(rule.selection_rule.amount),
            kind=rule.name,
            rule=None if rule.is_builtin else str(rule.selection_rule),
            harm_set=rule.harm_set,
            train_modality=modality,
            step=study.tuning.save_steps[-1],
        )
        for rule in arm_rules(study)
        for modality in study.tuning.modalities
    ]
    base = RunResult(arm="base", model="", base_seed=0, kind="base", step=0)
    plan = PrimaryPlan.of_study(study)
    return list(all_contrasts(arms, [base], study.undefended_system, study.system_defense, plan))


def _format_points(value: float | None) -> str:
    return "none" if value is None or value > 1 else f"{100 * value:.0f} points"
