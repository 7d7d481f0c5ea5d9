"""Safety-utility trade-off: attack success rate, over-refusal, utility and retention of each defense, with the
difference from the undefended arm and what the defense costs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from undersong.evaluation.rates import Metric
from undersong.results.schema import DefendedRun, PromptSetRate, RunResult
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_defenses import CostPart, DefenseRecord, PairedJsrChange, RatesByModality, RatesBySet
from undersong.statistics.multiple_testing import holm
from undersong.statistics.run_bounds import bound_run_mean, prompt_interval
from undersong.statistics.runs import RunKey, mean_runs, paired_runs
from undersong.study.results.comparisons import harm_metric
from undersong.types import UndersongError


@dataclass(frozen=True)
class DefenseCondition:
    """Condition of the audit: the selection that trains, and the system prompt."""

    name: str
    kind: str  # selection kind: closest | distant | random | base
    system: str  # name of the system prompt
    applied_changes: tuple[str, ...] = ()  # changes to an arm, if it is not a condition of the undefended study

    def differences_from(self, undefended: DefenseCondition) -> list[str]:
        """Fields that differ from the undefended condition."""
        return [f for f in ("kind", "system") if getattr(self, f) != getattr(undefended, f)]


FAMILY_ERROR = 0.025  # probability that any ceiling of the conditions of one arm is too low
SIGNIFICANCE_LEVEL = 0.05

MeasuredRate = tuple[RunKey, PromptSetRate]  # one rate of one run, with the run's (base, draw, seed)


def safety_utility_tradeoff(
    runs: Sequence[RunResult],
    defenses: Sequence[DefenseCondition],
    *,
    last_step: int,
    axis: str,
    family: str | None = None,
) -> list[DefenseRecord]:
    """Compute one row per fraction, training modality and defense: means over runs with t intervals, and the cost.

    A defense is chosen from all that were tried, so the ceilings of one arm hold together (Bonferroni over the
    undefended arm and its defenses), and the p values of the changes are adjusted by Holm's method.

    Args:
        runs: Undefended and defended runs.
        defenses: Conditions to compare; the first is the undefended one.
        last_step: Training step; runs at other steps are ignored.
        axis: Name of the axis; runs on other axes are ignored.
        family: Family of the models, which is copied to the rows.

    Raises:
        UndersongError: A condition differs from the undefended one in more than one thing, so that its cost cannot be
            attributed.
    """
    _check_one_change([condition for condition in defenses if not condition.applied_changes])
    last_step_runs = [run for run in runs if run.train_modality and (run.step, run.axis) == (last_step, axis)]
    rows = []
    for fraction, modality in sorted({(run.fraction or 0.0, str(run.train_modality)) for run in last_step_runs}):
        arm_runs = [run for run in last_step_runs if (run.fraction, run.train_modality) == (fraction, modality)]
        undefended_runs = _condition_runs(arm_runs, defenses[0])
        undefended: DefenseRecord | None = None
        measured = [(defense, found) for defense in defenses if (found := _condition_runs(arm_runs, defense))]
        changes = _adjusted_changes(
            [
                {} if defense is defenses[0] else _jsr_change(defenses[0], undefended_runs, defense, defense_runs)
                for defense, defense_runs in measured
            ]
        )
        confidence = 1 - FAMILY_ERROR / len(measured) if measured else 1 - FAMILY_ERROR
        for (defense, defense_runs), jsr_change in zip(measured, changes):
            row = DefenseRecord(
                defense=defense.name,
                family=family,
                axis=axis,
                fraction=fraction,
                train_modality=modality,
                step=last_step,
                kind=defense.kind,
                system=defense.system,
                changes=list(defense.applied_changes),
                arm=defense_runs[0].arm,
                undefended_arm=(undefended_runs or defense_runs)[0].arm,
                n_runs=len(defense_runs),
                ceiling_confidence=confidence,
                **_measured_fields(defense, defense_runs, confidence),
                jsr_change=jsr_change,
                after_retuning=_jsr_after_retuning(arm_runs, defense),
            )
            undefended = row if defense is defenses[0] else undefended
            rows.append(row if undefended is None else with_cost(row, undefended))
    return rows


def with_cost(row: DefenseRecord, undefended: DefenseRecord) -> DefenseRecord:
    """Add to a row the cost of its defense compared with the undefended arm. All costs are computed here.

    The cost has three parts: over-refusal gained, utility lost, and the lost share of what the tuning taught. Each is
    the largest over the benign sets and prompt modalities that both rows have. The largest part, from 0 to 1, is
    `max_cost`; the undefended arm has none.
    """
    over_refusal = _largest_loss(row.over_refusal, undefended.over_refusal, 1)
    utility = _largest_loss(row.utility, undefended.utility, -1)
    retention = 0.0 if row.defense == undefended.defense else None
    if row.retention is not None and row.retention.value is not None:
        retention = min(1.0, max(0.0, 1 - row.retention.value))
    losses = [0.0, *(part.loss for part in (over_refusal, utility) if part is not None), retention or 0.0]
    return row.model_copy(
        update={
            "over_refusal_rise": over_refusal,
            "utility_loss": utility,
            "retention_loss": retention,
            "max_cost": None if row.defense == undefended.defense else min(1.0, max(losses)),
        }
    )


def _largest_loss(rates: RatesBySet, undefended: RatesBySet, sign: int) -> CostPart | None:
    parts = [
        CostPart(loss=sign * (rate.value - baseline.value), prompt_set=name, modality=modality)
        for name, by_modality in rates.items()
        for modality, rate in by_modality.items()
        if (baseline := undefended.get(name, {}).get(modality)) is not None
        and rate.value is not None
        and baseline.value is not None
    ]
    return max(parts, key=lambda part: part.loss, default=None)


def _condition_runs(runs: Sequence[RunResult], defense: DefenseCondition) -> list[RunResult]:
    applied_defense = defense.name if defense.applied_changes else None
    return [
        run for run in runs if (run.kind, _defense_of(run)) == (defense.kind, applied_defense) and not _is_retuned(run)
    ]


def _defense_of(run: RunResult) -> str | None:
    return run.defense if isinstance(run, DefendedRun) else None


def _is_retuned(run: RunResult) -> bool:
    return isinstance(run, DefendedRun) and run.retuned


def _jsr_after_retuning(runs: Sequence[RunResult], defense: DefenseCondition) -> RatesByModality:
    """Prompt modality -> JSR after a second tuning on top; empty: that was not tried."""
    retuned = [run for run in runs if _is_retuned(run) and _defense_of(run) == defense.name]
    return _by_modality(_first_set(_harmful(retuned, defense.system)))


def _harmful(runs: Iterable[RunResult], system: str) -> list[MeasuredRate]:
    return [found for found in _measured_rates(runs) if found[1].harmful and found[1].system == system]


def _first_set(rates: Sequence[MeasuredRate]) -> list[MeasuredRate]:
    """Return the rates of the first set. Other sets, such as other voices or noise, only enter the ceiling."""
    return [found for found in rates if found[1].prompt_set == rates[0][1].prompt_set]


def _check_one_change(defenses: Sequence[DefenseCondition]) -> None:
    for defense in defenses[1:]:
        differences = defense.differences_from(defenses[0])
        if len(differences) != 1:
            problem = f"{' and '.join(differences)} at once" if differences else "nothing"
            raise UndersongError(f"Defense {defense.name!r} changes {problem}; a defense changes one thing.")


class _Measured(TypedDict):
    metric: Metric
    jsr: RatesByModality
    jsr_by_prompt_set: RatesBySet
    jsr_ceiling: float | None
    jsr_ceiling_in_runs: float | None
    over_refusal: RatesBySet
    over_refusal_ceiling: float | None
    over_refusal_ceiling_in_runs: float | None
    utility: RatesBySet
    retention: ValueWithInterval | None
    retention_known: bool
    note: str | None


def _measured_fields(defense: DefenseCondition, runs: Sequence[RunResult], confidence: float) -> _Measured:
    harmful = _harmful(runs, defense.system)
    benign = [found for found in _measured_rates(runs) if not found[1].harmful and found[1].system == defense.system]
    defended = [run for run in runs if isinstance(run, DefendedRun)]
    retention = {run.run_key: run.retention for run in defended if run.retention is not None}
    return _Measured(
        metric=harm_metric(runs),
        jsr=_by_modality(_first_set(harmful)),
        jsr_by_prompt_set=_by_set(harmful),
        jsr_ceiling=_rate_ceiling(harmful, confidence),
        jsr_ceiling_in_runs=_ceiling_in_runs(harmful, confidence),
        over_refusal=_by_set(benign),
        over_refusal_ceiling=_rate_ceiling(benign, confidence),
        over_refusal_ceiling_in_runs=_ceiling_in_runs(benign, confidence),
        utility=_by_set(benign, correct=True),
        retention=_mean_interval(retention, None) if retention else None,
        retention_known=all(run.retention_known for run in defended),
        note=_choice_note(defended, len(runs)),
    )


def _choice_note(runs: Sequence[DefendedRun], run_count: int) -> str | None:
    """What was chosen in each run, where something was."""
    choices = [run.chosen_text for run in runs if run.chosen_text]
    return "; ".join(f"{text} ({choices.count(text)} of {run_count} runs)" for text in dict.fromkeys(choices)) or None


def _jsr_change(
    undefended: DefenseCondition,
    undefended_runs: Sequence[RunResult],
    defense: DefenseCondition,
    runs: Sequence[RunResult],
) -> dict[str, PairedJsrChange]:
    """Return by prompt modality the JSR on the first harmful set minus that of the undefended arm.

    Runs are paired by base, draw and seed. If all runs differ by the same amount, interval and p value are bounds for
    any run noise.
    """
    before = _first_set(_harmful(undefended_runs, undefended.system))
    after = _first_set(_harmful(runs, defense.system))
    rates, changes = (_rates_by_modality(before), _rates_by_modality(after)), {}
    for modality in sorted(rates[0].keys() & rates[1].keys()):
        if rates[0][modality].keys() == rates[1][modality].keys():
            change = paired_runs(rates[0][modality], rates[1][modality], limits=(-1.0, 1.0))
            changes[modality] = PairedJsrChange(
                difference=change.difference, low=change.low, high=change.high, p=change.p, significant=False
            )
    return changes


def _adjusted_changes(changes: Sequence[dict[str, PairedJsrChange]]) -> list[dict[str, PairedJsrChange]]:
    """The changes with p values that Holm's method adjusts over all defenses of the arm and all modalities."""
    places = [(index, modality) for index, by_modality in enumerate(changes) for modality in by_modality]
    adjusted = holm([changes[index][modality].p for index, modality in places])
    result = [dict(by_modality) for by_modality in changes]
    for (index, modality), p in zip(places, adjusted):
        update = {"p_adjusted": p, "significant": p is not None and p < SIGNIFICANCE_LEVEL}
        result[index][modality] = changes[index][modality].model_copy(update=update)
    return result


def _rate_ceiling(rates: Sequence[MeasuredRate], confidence: float) -> float | None:
    """The largest rate, of any set and modality, that neither run noise nor the number of prompts excludes.

    It is an upper bound of the mean over runs for any run noise: runs that agree exclude only so much. None for a
    single run, whose noise is unknown, and without intervals.
    """
    upper_ends = []
    for of_set in _rates_by_set_and_modality(rates):
        ends = _prompt_ends(of_set, confidence)
        if ends is None:
            return None
        bounds = bound_run_mean(*ends, confidence)
        if bounds.units < 2:
            return None
        upper_ends.append(bounds.high)
    return max(upper_ends, default=None)


def _ceiling_in_runs(rates: Sequence[MeasuredRate], confidence: float) -> float | None:
    """The largest rate, of any run, set and modality, that the number of prompts does not exclude."""
    ends = [_prompt_ends([rate], confidence) for rate in rates]
    return None if None in ends else max((max(end[1].values()) for end in ends if end is not None), default=None)


def _rates_by_set_and_modality(rates: Sequence[MeasuredRate]) -> list[list[MeasuredRate]]:
    keys = sorted({(rate.prompt_set, rate.modality) for _, rate in rates})
    return [[(run, rate) for run, rate in rates if (rate.prompt_set, rate.modality) == key] for key in keys]


def _prompt_ends(
    rates: Sequence[MeasuredRate], confidence: float
) -> tuple[dict[RunKey, float], dict[RunKey, float]] | None:
    """Lower and upper end over prompts of each run's rate; None if a run has no interval."""
    lows, highs = {}, {}
    for run, rate in rates:
        if rate.low is None or rate.high is None:
            return None
        lows[run], highs[run] = prompt_interval(rate.rate, rate.low, rate.high, rate.n, rate.clusters, confidence)
    return lows, highs


def _measured_rates(runs: Iterable[RunResult]) -> Iterator[MeasuredRate]:
    for run in runs:
        for rate in run.rates:
            yield run.run_key, rate


def _by_set(rates: Sequence[MeasuredRate], correct: bool = False) -> RatesBySet:
    names = dict.fromkeys(rate.prompt_set for _, rate in rates)
    return {name: _by_modality([found for found in rates if found[1].prompt_set == name], correct) for name in names}


def _by_modality(rates: Sequence[MeasuredRate], correct: bool = False) -> RatesByModality:
    """Prompt modality -> mean and interval over runs."""
    return {
        modality: _mean_interval(of_runs, (0.0, 1.0))
        for modality, of_runs in sorted(_rates_by_modality(rates, correct).items())
    }


def _rates_by_modality(rates: Sequence[MeasuredRate], correct: bool = False) -> dict[str, dict[RunKey, float]]:
    """Prompt modality -> run -> rate, of one set."""
    by_modality: dict[str, dict[RunKey, float]] = {}
    for run, rate in rates:
        value = rate.correct_rate if correct else rate.rate
        if value is not None:
            by_modality.setdefault(rate.modality, {})[run] = value
    return by_modality


def _mean_interval(rates: Mapping[RunKey, float], limits: tuple[float, float] | None) -> ValueWithInterval:
    """Over independent units: runs of one base are not independent where there are several bases."""
    summary = mean_runs(rates, limits=limits)
    return ValueWithInterval(value=summary.mean, low=summary.low, high=summary.high)
