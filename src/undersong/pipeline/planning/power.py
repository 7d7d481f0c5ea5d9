"""Statistical power of a study's design: independent units and detectable differences per contrast. Loads no model."""

from __future__ import annotations

from collections.abc import Iterator

from undersong.results.comparisons import ContrastArm, recipe_contrasts
from undersong.results.schema import RunResult
from undersong.stages.black_box_models import trainable_models
from undersong.stages.selection import arm_rules
from undersong.statistics import detectable_difference, units_needed
from undersong.study import Study

STANDARD_DEVIATIONS = (0.02, 0.05, 0.1, 0.2)  # standard deviations of paired JSR differences in a plan
TARGET_DIFFERENCE = 0.1  # difference for which the needed number of units is given


def design_lines(study: Study, standard_deviation: float | None = None) -> list[str]:
    """Lines about the power of a study's design.

    They give the number of independent units per contrast, the smallest JSR difference detected with 80 % power, and
    the number of units needed for 10 points. The table has one row per standard deviation of paired differences,
    because none is known before the first run: of `standard_deviation`, or of several typical ones. Empty if all
    models are black boxes, because nothing is trained. Two published trainings on nearly the same selection differed by
    35 points (docs/results/paper.md), so a standard deviation of .2 is realistic.
    """
    if not trainable_models(study):
        return []
    if not arm_rules(study):
        return ["Design: nothing is trained, so no arms are compared; a rate's interval is over its prompts."]
    if (rule := study.tuning.sequential_seeds) is not None:
        return [
            f"Design: seeds are added one at a time from {rule.first} to at most {rule.last}, until {rule.contrast} is "
            f"{rule.stop.replace('|', ' or ')}; counts and costs are for {rule.last} seeds."
        ]
    unit, units = independent_units(study)
    family_size = count_recipe_contrasts(study)
    summary = f"{units} independent {unit}{'s' if units > 1 else ''} a contrast, {family_size} contrasts in the family"
    if units < 2:
        return [
            f"Design: {summary}. One unit shows no run noise, so there is no interval and no test; add seeds, draws or "
            "bases."
        ]
    heads = (
        "SD of paired differences",
        "alone",
        "corrected",
        f"{unit}s to show {100 * TARGET_DIFFERENCE:g} points, corrected",
    )
    rows: list[tuple[str, ...]] = [heads]
    for sd in STANDARD_DEVIATIONS if standard_deviation is None else (standard_deviation,):
        uncorrected, corrected = (
            detectable_difference(units, sd, comparisons=count) for count in (1, max(1, family_size))
        )
        needed = units_needed(TARGET_DIFFERENCE, sd, comparisons=max(1, family_size))
        differences = (_format_points(value) for value in (uncorrected, corrected))
        rows.append((f"{100 * sd:g} points", *differences, str(needed or "more than 10,000")))
    widths = [max(map(len, column)) for column in zip(*rows)]
    return [
        f"Design: {summary}. Smallest JSR difference shown with 80 % power, alone and corrected for the family:",
        *("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows),
    ]


def independent_units(study: Study) -> tuple[str, int]:
    """Outermost of base, draw and seed that takes several values (`statistics.runs`), and their number."""
    tuning = study.tuning
    parts = {"base": len(trainable_models(study)), "draw": len(set(tuning.draws)), "seed": len(tuning.seeds)}
    return next(((name, count) for name, count in parts.items() if count > 1), ("seed", parts["seed"]))


def count_recipe_contrasts(study: Study) -> int:
    """Return the number of recipe comparisons in the results, which Holm's correction treats as one family."""
    evaluated_sets = sum(prompt_set.harmful for prompt_set in study.prompt_sets.values()) * len(
        study.evaluation.modalities
    )
    return evaluated_sets * sum(1 for _ in planned_contrasts(study))


def planned_contrasts(study: Study) -> Iterator[tuple[str, ContrastArm, ContrastArm]]:
    """Yield (question, a, b) for each recipe contrast of the arms that a study declares, before any of them is run."""
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
    for axis, fraction in sorted({(rule.axis, float(rule.selection_rule.amount)) for rule in arm_rules(study)}):
        yield from recipe_contrasts(arms, axis, fraction, study.undefended_system, study.system_defense)


def _format_points(value: float | None) -> str:
    return "none" if value is None or value > 1 else f"{100 * value:.0f} points"
