"""Safety-utility trade-off: attack success rate, over-refusal, utility and retention of each defense, with the
difference from the undefended arm (rule 10 in docs/contributing/rules.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from undersong.statistics import RunKey, mean_runs, paired_runs
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


ARM_KEYS = ("family", "axis", "fraction", "train_modality")  # fields that the rows of one undefended arm share
RunEntry = Mapping[str, Any]
SetEntry = tuple[RunKey, Mapping[str, Any]]  # one set of one run, with the run's (base, draw, seed)


def safety_utility_tradeoff(
    runs: Sequence[RunEntry], defenses: Sequence[DefenseCondition], *, last_step: int, axis: str
) -> list[dict[str, Any]]:
    """Trade-off row of each (fraction, training modality, defense): means over runs with t intervals.

    Args:
        runs: Runs of results.json, undefended and defended.
        defenses: Conditions; the first one is undefended.
        last_step: Step to compare at.
        axis: Axis to compare on.

    Raises:
        UndersongError: A condition changes more than one thing against the undefended one, so that its cost cannot be
            attributed.
    """
    _check_one_change([condition for condition in defenses if not condition.applied_changes])
    last_step_runs = [run for run in runs if run["train_modality"] and (run["step"], run["axis"]) == (last_step, axis)]
    rows = []
    for fraction, modality in sorted({(run["fraction"], run["train_modality"]) for run in last_step_runs}):
        arm_runs = [run for run in last_step_runs if (run["fraction"], run["train_modality"]) == (fraction, modality)]
        undefended_runs = _condition_runs(arm_runs, defenses[0])
        for defense in defenses:
            if defense_runs := _condition_runs(arm_runs, defense):
                arm_facts = {"axis": axis, "fraction": fraction, "train_modality": modality, "step": last_step}
                difference = (
                    _difference_from_undefended(defenses[0], undefended_runs, defense, defense_runs)
                    if defense is not defenses[0]
                    else {}
                )
                rows.append(
                    {
                        **arm_facts,
                        **_tradeoff_row(defense, defense_runs),
                        "against": difference,
                        "again": _jsr_after_retuning(arm_runs, defense),
                    }
                )
    return rows


def _condition_runs(runs: Sequence[RunEntry], defense: DefenseCondition) -> list[RunEntry]:
    applied_defense = defense.name if defense.applied_changes else None
    condition_runs = [run for run in runs if (run["kind"], run.get("defense")) == (defense.kind, applied_defense)]
    return [run for run in condition_runs if not run.get("again")]


def _jsr_after_retuning(runs: Sequence[RunEntry], defense: DefenseCondition) -> dict[str, Any]:
    """JSR after retuning, by prompt modality; empty if there was none."""
    retuned_runs = [run for run in runs if run.get("again") and run.get("defense") == defense.name]
    entries = [
        entry for entry in _set_entries(retuned_runs) if entry[1]["harmful"] and entry[1]["system"] == defense.system
    ]
    return _by_modality(_first_set_entries(entries), _attack_metric(entries))


def _first_set_entries(entries: Sequence[SetEntry]) -> list[SetEntry]:
    """Entries of the first set; the others, of other voices or in noise, are listed separately and count for the
    ceiling."""
    return [entry for entry in entries if entry[1]["set"] == entries[0][1]["set"]]


def _attack_metric(entries: Sequence[SetEntry]) -> str:
    """Name of the attack success rate: it is no JSR if the judge sees refusals only."""
    return "non_refusal_rate" if any("non_refusal_rate" in entry for _, entry in entries) else "jsr"


def _check_one_change(defenses: Sequence[DefenseCondition]) -> None:
    for defense in defenses[1:]:
        differences = defense.differences_from(defenses[0])
        if len(differences) != 1:
            problem = f"{' and '.join(differences)} at once" if differences else "nothing"
            raise UndersongError(f"Defense {defense.name!r} changes {problem}; a defense changes one thing.")


def _tradeoff_row(defense: DefenseCondition, runs: Sequence[RunEntry]) -> dict[str, Any]:
    entries = [entry for entry in _set_entries(runs) if entry[1]["system"] == defense.system]
    harmful = [entry for entry in entries if entry[1]["harmful"]]
    benign = [entry for entry in entries if not entry[1]["harmful"]]
    metric = _attack_metric(harmful)
    retention = {_run_key(run): run["kept"] for run in runs if run.get("kept") is not None}
    return {
        "defense": defense.name,
        "axis": runs[0]["axis"],
        "kind": defense.kind,
        "system": defense.system,
        "changes": list(defense.applied_changes),
        "runs": len(runs),
        "jsr": _by_modality(_first_set_entries(harmful), metric),
        "jsr_by_set": _by_set(harmful, metric),
        "jsr_ceiling": _rate_ceiling(harmful, metric),
        "over_refusal": _by_set(benign, "refusal_rate"),
        "over_refusal_ceiling": _rate_ceiling(benign, "refusal_rate"),
        "utility": _by_set(benign, "right_rate"),
        "kept": _mean_interval(retention, None) if retention else None,
        "measured": all(run.get("learned", True) for run in runs),
        "metric": metric,
        "note": _choice_note(runs),
    }


def _choice_note(runs: Sequence[RunEntry]) -> str | None:
    """Choices made in each run, with the number of runs; None if nothing was chosen."""
    choices = [run["chose"] for run in runs if run.get("chose")]
    return "; ".join(f"{text} ({choices.count(text)} of {len(runs)} runs)" for text in dict.fromkeys(choices)) or None


def _difference_from_undefended(
    undefended: DefenseCondition,
    undefended_runs: Sequence[RunEntry],
    defense: DefenseCondition,
    runs: Sequence[RunEntry],
) -> dict[str, Any]:
    """JSR (first harmful set) minus that of the undefended arm of the same base, draw and seed, by prompt modality.

    `told` is True if the interval over runs excludes 0. If several runs all differ by the same amount, it is True if
    their own intervals over prompts are disjoint on average.
    """
    before, after = (
        _first_set_entries(
            [
                entry
                for entry in _set_entries(condition_runs)
                if entry[1]["harmful"] and entry[1]["system"] == condition.system
            ]
        )
        for condition, condition_runs in ((undefended, undefended_runs), (defense, runs))
    )
    metric = _attack_metric(before)
    rates, differences = (_rates_by_modality(before, metric), _rates_by_modality(after, metric)), {}
    for modality in sorted(rates[0].keys() & rates[1].keys()):
        if rates[0][modality].keys() == rates[1][modality].keys():
            change = paired_runs(rates[0][modality], rates[1][modality], limits=(-1.0, 1.0))
            if change.low is not None and change.high is not None:
                is_significant = not change.low <= 0 <= change.high
            else:
                is_significant = change.units > 1 and _are_disjoint(
                    *(_mean_interval_ends(entries, modality) for entries in (before, after))
                )
            differences[modality] = {
                "difference": change.difference,
                "low": change.low,
                "high": change.high,
                "p": change.p,
                "told": is_significant,
            }
    return differences


def _mean_interval_ends(entries: Sequence[SetEntry], modality: str) -> tuple[float, float] | None:
    """Mean ends of the runs' own intervals over prompts."""
    modality_entries = [entry for _, entry in entries if entry["modality"] == modality]
    if any(entry.get("low") is None or entry.get("high") is None for entry in modality_entries):
        return None
    return fmean(entry["low"] for entry in modality_entries), fmean(entry["high"] for entry in modality_entries)


def _are_disjoint(first: tuple[float, float] | None, second: tuple[float, float] | None) -> bool:
    return first is not None and second is not None and (first[1] < second[0] or second[1] < first[0])


def _rate_ceiling(entries: Sequence[SetEntry], metric: str) -> float | None:
    """Largest rate, over sets and modalities, that neither run noise nor the number of prompts excludes.

    For each set it is the upper end over runs or the mean upper end over prompts, whichever is higher; if all runs
    agree, only the latter. None for a single run, whose noise is unknown, and without intervals.
    """
    upper_ends = []
    for name, modality in sorted({(entry["set"], entry["modality"]) for _, entry in entries}):
        set_entries = [(run, entry) for run, entry in entries if (entry["set"], entry["modality"]) == (name, modality)]
        if len(set_entries) < 2 or any(entry.get("high") is None for _, entry in set_entries):
            return None
        over_runs = mean_runs({run: entry[metric] for run, entry in set_entries}, limits=(0.0, 1.0))
        over_prompts = fmean(entry["high"] for _, entry in set_entries)
        upper_ends.append(over_prompts if over_runs.high is None else max(over_runs.high, over_prompts))
    return max(upper_ends, default=None)


def _run_key(run: RunEntry) -> RunKey:
    return run["base_seed"], run["draw"], run["seed"]


def _set_entries(runs: Iterable[RunEntry]) -> Iterator[SetEntry]:
    for run in runs:
        for entry in run["sets"]:
            yield _run_key(run), entry


def _by_set(entries: Sequence[SetEntry], metric: str) -> dict[str, Any]:
    names = dict.fromkeys(entry["set"] for _, entry in entries)
    return {name: _by_modality([entry for entry in entries if entry[1]["set"] == name], metric) for name in names}


def _by_modality(entries: Sequence[SetEntry], metric: str) -> dict[str, Any]:
    """Mean, low and high over runs, by prompt modality."""
    return {
        modality: _mean_interval(rates_by_run, (0.0, 1.0))
        for modality, rates_by_run in sorted(_rates_by_modality(entries, metric).items())
    }


def _rates_by_modality(entries: Sequence[SetEntry], metric: str) -> dict[str, dict[RunKey, float]]:
    """Rate of each run on one set, by prompt modality."""
    rates: dict[str, dict[RunKey, float]] = {}
    for run, entry in entries:
        rates.setdefault(entry["modality"], {})[run] = entry[metric]
    return rates


def _mean_interval(rates: Mapping[RunKey, float], limits: tuple[float, float] | None) -> dict[str, float | None]:
    """Mean and interval over independent units: runs of one base are not independent if there are several bases."""
    summary = mean_runs(rates, limits=limits)
    return {"mean": summary.mean, "low": summary.low, "high": summary.high}
