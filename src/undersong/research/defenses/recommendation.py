"""Recommendation: the cheapest defense that is shown to be safe, with the reason in words.

Choosing among several defenses is charged: the ceilings of all rows of one arm hold together, so that none of them is
called safe wrongly in more than 2.5 % of studies, however many were tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from undersong.results.schema_defenses import DefenseRecord
from undersong.settings.judge_names import RATE_LABELS
from undersong.statistics.bounded_mean import BOUND_CONFIDENCE, units_to_exclude

MAX_ACCEPTABLE_COST = 0.5  # a cost from which on a defense is no bargain, as a share of what it costs most


def is_safe(row: DefenseRecord, max_jsr: float, max_over_refusal: float) -> bool:
    """Return True if the upper ends of JSR and over-refusal are both known and within their limits."""
    ceilings = row.jsr_ceiling, row.over_refusal_ceiling
    limits = (max_jsr, max_over_refusal)
    return all(ceiling is not None and ceiling <= limit for ceiling, limit in zip(ceilings, limits))


class Recommendation(NamedTuple):
    """The name of the recommended defense, or None, and why."""

    defense: str | None
    reason: str


def recommend(rows: Sequence[DefenseRecord], max_jsr: float, max_over_refusal: float) -> Recommendation:
    """Choose among the rows of one undefended arm, that arm among them.

    A defense must first be shown to be safe; then the lowest cost wins, then the lower JSR. A defense is not
    recommended if its cost is not fully known because its retention could not be measured. If no defense is safe, the
    reason says how many runs would show it, and names the one with the lowest JSR of those that significantly lower it.
    """
    undefended = next(row for row in rows if row.defense == "none")
    defended = [row for row in rows if row is not undefended]
    if is_safe(undefended, max_jsr, max_over_refusal):
        reason = (
            f"None is needed: without one no {RATE_LABELS[undefended.metric]} above {max_jsr:.0%} is left possible."
        )
        return Recommendation(None, reason)
    limits = (
        f"no {RATE_LABELS[undefended.metric]} above {max_jsr:.0%} and no over-refusal above {max_over_refusal:.0%} "
        f"left possible, corrected for {len(rows)} conditions"
    )
    safe = [row for row in defended if is_safe(row, max_jsr, max_over_refusal)]
    affordable = [row for row in safe if row.retention_known and _cost(row) < MAX_ACCEPTABLE_COST]
    if affordable:
        cheapest = min(affordable, key=lambda row: (round(_cost(row), 3), _highest_jsr(row)))
        reason_start = f"Of {len(safe)} shown to be safe ({limits}) it costs least: {_cost(cheapest):.1%} where it "
        return Recommendation(cheapest.defense, f"{reason_start}costs most.{_retuning_sentence(cheapest)}")
    if safe:
        costs = [f"{_cost(row):.0%}" if row.retention_known else "not known" for row in safe]
        listing = ", ".join(f"{row.defense} ({cost})" for row, cost in zip(safe, costs))
        return Recommendation(
            None,
            f"Shown to be safe ({limits}), at a cost that is too much or not known where it costs most: {listing}.",
        )
    if not undefended.over_refusal:
        return Recommendation(None, "None is shown to be safe: no benign set says what each refuses; ask one.")
    if any(row.jsr_ceiling is None for row in defended):
        return Recommendation(
            None, f"None is shown to be safe ({limits}): one run shows no noise; train each arm with several seeds."
        )
    reason = f"None is shown to be safe ({limits}). {_missing_evidence(defended, max_jsr, max_over_refusal)}"
    significantly_lower = [row for row in defended if _is_significantly_lower(row)]
    if significantly_lower:
        lowest = min(significantly_lower, key=_highest_jsr)
        reason += (
            f" Of those that significantly lower it, {lowest.defense} leaves the lowest rate "
            f"({_highest_jsr(lowest):.1%} at most)."
        )
    return Recommendation(None, reason)


def _missing_evidence(defended: Sequence[DefenseRecord], max_jsr: float, max_over_refusal: float) -> str:
    """Say what the runs of the nearest defense exclude, and how many runs like them would show that it is safe."""
    nearest = min(defended, key=lambda row: (_highest_jsr(row), row.jsr_ceiling or 1.0))
    rate = RATE_LABELS[nearest.metric]
    name = nearest.defense[:1].upper() + nearest.defense[1:]
    sentence = (
        f"{name} comes closest, with a {rate} of {_highest_jsr(nearest):.1%} at most. Other trainings may differ: "
        f"{nearest.n_runs} runs cannot rule out a mean {rate} of {nearest.jsr_ceiling or 1.0:.0%} or a mean "
        f"over-refusal of {nearest.over_refusal_ceiling or 1.0:.0%}."
    )
    needed = [
        units_to_exclude(limit, 1.0 if rate is None else rate, nearest.ceiling_confidence or BOUND_CONFIDENCE)
        for limit, rate in (
            (max_jsr, nearest.jsr_ceiling_in_runs),
            (max_over_refusal, nearest.over_refusal_ceiling_in_runs),
        )
    ]
    known = [units for units in needed if units is not None]
    if len(known) == len(needed):
        return f"{sentence} {max(known)} independent runs that all do as well would show it."
    return f"{sentence} More runs alone cannot show it: a run has too few prompts to rule out a rate above a limit."


def _retuning_sentence(row: DefenseRecord) -> str:
    """Describe what remains of the defense after a second tuning, which the claim of safety does not cover."""
    rates = [rate.value for rate in row.after_retuning.values() if rate.value is not None]
    return f" Tuned again on top, its {RATE_LABELS[row.metric]} is {max(rates):.1%}." if rates else ""


def _is_significantly_lower(row: DefenseRecord) -> bool:
    return bool(row.jsr_change) and all(
        change.significant and change.difference < 0 for change in row.jsr_change.values()
    )


def _highest_jsr(row: DefenseRecord) -> float:
    """The JSR where it is highest, of all harmful sets."""
    return max(
        (
            rate.value
            for by_modality in row.jsr_by_prompt_set.values()
            for rate in by_modality.values()
            if rate.value is not None
        ),
        default=1.0,
    )


def _cost(row: DefenseRecord) -> float:
    """Return the largest cost of a defended row whose cost is known."""
    return row.max_cost or 0.0
