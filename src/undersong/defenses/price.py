"""What a defense buys and what it costs: JSR, over-refusal and utility in one row (DESIGN rule 10).

The two published defenses, train on *distant* data and a *system prompt* at inference, are conditions of any study;
what goes beyond them is made by a study's `defenses`.  Each changes one thing against the undefended condition, so that
its price is its own, or says what it changes.  Knows rates a run; does not know how replies were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from undersong.statistics import RunKey, mean_runs, paired_runs
from undersong.types import UndersongError


@dataclass(frozen=True)
class Defense:
    """A condition of the audit: which selection trains, and which system text speaks."""

    name: str
    kind: str  # selection kind: closest | distant | random | base
    system: str  # name of the system text
    made: tuple[str, ...] = ()  # what was done to an arm to make it, where it is no condition of the undefended study

    def changes(self, undefended: Defense) -> list[str]:
        """What differs from the undefended condition."""
        return [f for f in ("kind", "system") if getattr(self, f) != getattr(undefended, f)]


PLACE = ("family", "axis", "fraction", "train_modality")  # what rows of one undefended arm have in common
Run = Mapping[str, Any]
Entry = tuple[RunKey, Mapping[str, Any]]  # one set of one run, with the run's (base, draw, seed)


def price(runs: Sequence[Run], defenses: Sequence[Defense], *, last_step: int, axis: str) -> list[dict[str, Any]]:
    """One row a (fraction, training modality, defense): means over runs with t intervals, a set and prompt modality.

    `runs` are those of results.json, undefended and defended.  The first defense is the undefended condition; a
    condition that changes more than one thing against it is an error, because its price could not be told apart.
    """
    _check_one_change([one for one in defenses if not one.made])
    here = [run for run in runs if run["train_modality"] and (run["step"], run["axis"]) == (last_step, axis)]
    rows = []
    for fraction, modality in sorted({(run["fraction"], run["train_modality"]) for run in here}):
        alike = [run for run in here if (run["fraction"], run["train_modality"]) == (fraction, modality)]
        without = _chosen(alike, defenses[0])
        for defense in defenses:
            if chosen := _chosen(alike, defense):
                facts = {"axis": axis, "fraction": fraction, "train_modality": modality, "step": last_step}
                against = _against(defenses[0], without, defense, chosen) if defense is not defenses[0] else {}
                rows.append({**facts, **_row(defense, chosen), "against": against, "again": _again(alike, defense)})
    return rows


def _chosen(runs: Sequence[Run], defense: Defense) -> list[Run]:
    made = defense.name if defense.made else None
    alike = [run for run in runs if (run["kind"], run.get("defense")) == (defense.kind, made)]
    return [run for run in alike if not run.get("again")]


def _again(runs: Sequence[Run], defense: Defense) -> dict[str, Any]:
    """Prompt modality -> JSR after a second tuning on top; empty: that was not tried."""
    mine = [run for run in runs if run.get("again") and run.get("defense") == defense.name]
    entries = [entry for entry in _entries(mine) if entry[1]["harmful"] and entry[1]["system"] == defense.system]
    return _by_modality(_first(entries), _attack(entries))


def _first(entries: Sequence[Entry]) -> list[Entry]:
    """Of the first set: the others, of other voices or in noise, stand beside it and are in the ceiling."""
    return [entry for entry in entries if entry[1]["set"] == entries[0][1]["set"]]


def _attack(entries: Sequence[Entry]) -> str:
    """Where the judge sees refusals alone the share is no JSR."""
    return "non_refusal_rate" if any("non_refusal_rate" in entry for _, entry in entries) else "jsr"


def _check_one_change(defenses: Sequence[Defense]) -> None:
    for defense in defenses[1:]:
        changed = defense.changes(defenses[0])
        if len(changed) != 1:
            what = f"{' and '.join(changed)} at once" if changed else "nothing"
            raise UndersongError(f"Defense {defense.name!r} changes {what}; a defense changes one thing.")


def _row(defense: Defense, runs: Sequence[Run]) -> dict[str, Any]:
    entries = [entry for entry in _entries(runs) if entry[1]["system"] == defense.system]
    harmful = [entry for entry in entries if entry[1]["harmful"]]
    benign = [entry for entry in entries if not entry[1]["harmful"]]
    attack = _attack(harmful)
    kept = {_key(run): run["kept"] for run in runs if run.get("kept") is not None}
    return {
        "defense": defense.name,
        "axis": runs[0]["axis"],
        "kind": defense.kind,
        "system": defense.system,
        "changes": list(defense.made),
        "runs": len(runs),
        "jsr": _by_modality(_first(harmful), attack),
        "jsr_by_set": _by_set(harmful, attack),
        "jsr_ceiling": _ceiling(harmful, attack),
        "over_refusal": _by_set(benign, "refusal_rate"),
        "over_refusal_ceiling": _ceiling(benign, "refusal_rate"),
        "utility": _by_set(benign, "right_rate"),
        "kept": _interval(kept, None) if kept else None,
        "measured": all(run.get("learned", True) for run in runs),
        "metric": attack,
        "note": _note(runs),
    }


def _note(runs: Sequence[Run]) -> str | None:
    """What was chosen in each run, where something was."""
    said = [run["chose"] for run in runs if run.get("chose")]
    return "; ".join(f"{text} ({said.count(text)} of {len(runs)} runs)" for text in dict.fromkeys(said)) or None


def _against(undefended: Defense, without: Sequence[Run], defense: Defense, runs: Sequence[Run]) -> dict[str, Any]:
    """Prompt modality -> JSR (first harmful set) less that of the undefended arm of the same base, draw and seed.

    `told`: whether the interval over runs leaves 0 out; of several runs that all differ by the same, whether their own
    intervals over prompts lie apart on average.
    """
    before, after = (
        _first([e for e in _entries(chosen) if e[1]["harmful"] and e[1]["system"] == condition.system])
        for condition, chosen in ((undefended, without), (defense, runs))
    )
    key = _attack(before)
    sides, found = (_rates(before, key), _rates(after, key)), {}
    for modality in sorted(sides[0].keys() & sides[1].keys()):
        if sides[0][modality].keys() == sides[1][modality].keys():
            change = paired_runs(sides[0][modality], sides[1][modality], limits=(-1.0, 1.0))
            if change.low is not None and change.high is not None:
                told = not change.low <= 0 <= change.high
            else:
                told = change.units > 1 and _apart(*(_ends(side, modality) for side in (before, after)))
            found[modality] = {
                "difference": change.difference, "low": change.low, "high": change.high, "p": change.p, "told": told,
            }  # fmt: skip
    return found


def _ends(entries: Sequence[Entry], modality: str) -> tuple[float, float] | None:
    """Mean ends of the runs' own intervals over prompts."""
    mine = [entry for _, entry in entries if entry["modality"] == modality]
    if any(entry.get("low") is None or entry.get("high") is None for entry in mine):
        return None
    return fmean(entry["low"] for entry in mine), fmean(entry["high"] for entry in mine)


def _apart(one: tuple[float, float] | None, other: tuple[float, float] | None) -> bool:
    return one is not None and other is not None and (one[1] < other[0] or other[1] < one[0])


def _ceiling(entries: Sequence[Entry], key: str) -> float | None:
    """The largest rate, of any set and modality, that neither run noise nor the number of prompts excludes.

    The upper end over runs, or of the runs' own intervals over prompts on average, whichever is higher; of runs that
    all agree the latter alone.  None for a single run, whose noise nobody has seen, and without intervals.
    """
    ends = []
    for name, modality in sorted({(entry["set"], entry["modality"]) for _, entry in entries}):
        mine = [(run, entry) for run, entry in entries if (entry["set"], entry["modality"]) == (name, modality)]
        if len(mine) < 2 or any(entry.get("high") is None for _, entry in mine):
            return None
        over_runs = mean_runs({run: entry[key] for run, entry in mine}, limits=(0.0, 1.0))
        over_prompts = fmean(entry["high"] for _, entry in mine)
        ends.append(over_prompts if over_runs.high is None else max(over_runs.high, over_prompts))
    return max(ends, default=None)


def _key(run: Run) -> RunKey:
    return run["base_seed"], run["draw"], run["seed"]


def _entries(runs: Iterable[Run]) -> Iterator[Entry]:
    for run in runs:
        for entry in run["sets"]:
            yield _key(run), entry


def _by_set(entries: Sequence[Entry], key: str) -> dict[str, Any]:
    names = dict.fromkeys(entry["set"] for _, entry in entries)
    return {name: _by_modality([e for e in entries if e[1]["set"] == name], key) for name in names}


def _by_modality(entries: Sequence[Entry], key: str) -> dict[str, Any]:
    """Prompt modality -> {mean, low, high} over runs."""
    return {modality: _interval(of_runs, (0.0, 1.0)) for modality, of_runs in sorted(_rates(entries, key).items())}


def _rates(entries: Sequence[Entry], key: str) -> dict[str, dict[RunKey, float]]:
    """Prompt modality -> run -> rate, of one set."""
    rates: dict[str, dict[RunKey, float]] = {}
    for run, entry in entries:
        rates.setdefault(entry["modality"], {})[run] = entry[key]
    return rates


def _interval(rates: Mapping[RunKey, float], limits: tuple[float, float] | None) -> dict[str, float | None]:
    """Over independent units: runs of one base are not independent where there are several bases."""
    summary = mean_runs(rates, limits=limits)
    return {"mean": summary.mean, "low": summary.low, "high": summary.high}
