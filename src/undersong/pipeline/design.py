"""What a study's design can show, told before it costs anything.  Knows studies and power; loads no model."""

from __future__ import annotations

from typing import Any

from undersong.pipeline.results.comparisons import contrasts
from undersong.pipeline.speakers import trained
from undersong.pipeline.stages.selections import rules_of
from undersong.statistics import detectable, units_needed
from undersong.study import Study

SPREADS = (0.02, 0.05, 0.1, 0.2)  # standard deviations of paired differences of JSR that a plan answers for
WANTED = 0.1  # the difference that a number of units is named for


def design_lines(study: Study, spread: float | None = None) -> list[str]:
    """How many independent units a contrast has, the smallest JSR difference that they show with a power of 80 %, and
    how many would show 10 points; for several spreads of paired differences, since none is known before the first run.

    Nothing where all models only answer, because then nothing is trained.  `spread`: the one spread to answer for.

    (Two published trainings on nearly the same selection differed by 35 points, `paper` 9.1: a spread of .2 is no bad
    case.)
    """
    if not trained(study):
        return []
    if not rules_of(study):
        return ["Design: nothing is trained, so no arms are compared; a rate's interval is over its prompts."]
    unit, units = independent_units(study)
    family = contrasts_of(study)
    said = f"{units} independent {unit}{'s' if units > 1 else ''} a contrast, {family} contrasts in the family"
    if units < 2:
        return [f"Design: {said}. One unit shows no run noise, so no interval and no test; add seeds, draws or bases."]
    lines = [f"Design: {said}. Smallest JSR difference shown with 80 % power, alone and corrected for the family:"]
    for sd in SPREADS if spread is None else (spread,):
        alone, corrected = (detectable(units, sd, comparisons=count) for count in (1, max(1, family)))
        needed = units_needed(WANTED, sd, comparisons=max(1, family))
        shown = ", ".join(_points(value) for value in (alone, corrected))
        lines.append(
            f"  where paired differences vary by {100 * sd:g} points (SD): {shown}; "
            f"for {100 * WANTED:g} points, corrected: {needed or 'more than 10,000'} {unit}s"
        )
    return lines


def independent_units(study: Study) -> tuple[str, int]:
    """Of base, draw and seed the outermost that takes several values (`statistics.runs`), and how many."""
    tuning = study.tuning
    parts = {"base": len(trained(study)), "draw": len(set(tuning.draws)), "seed": len(tuning.seeds)}
    return next(((name, count) for name, count in parts.items() if count > 1), ("seed", parts["seed"]))


def contrasts_of(study: Study) -> int:
    """How many recipe comparisons the results will hold: the family that Holm's correction is over."""
    arms: list[dict[str, Any]] = [
        {
            "axis": rule.axis,
            "fraction": float(rule.keep.amount),
            "kind": rule.name,
            "rule": "" if rule.plain else str(rule.keep),
            "harm_set": rule.to,
            "train_modality": modality,
        }
        for rule in rules_of(study)
        for modality in study.tuning.modalities
    ]
    asked = sum(one.harmful for one in study.sets.values()) * len(study.evaluation.modalities)
    cells = sorted({(arm["axis"], arm["fraction"]) for arm in arms})
    each = (contrasts(arms, axis, fraction, study.plain, study.system_defense) for axis, fraction in cells)
    return asked * sum(len(list(found)) for found in each)


def _points(value: float | None) -> str:
    return "none" if value is None or value > 1 else f"{100 * value:.0f} points"
