"""What a defense buys and what it costs: JSR, over-refusal and utility in one row (DESIGN rule 10).

The two published defenses: train on *distant* data, and a *system prompt* at inference.  Each changes one thing against
the undefended condition, so that its price is its own.  Knows rates a run; does not know how replies were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.statistics import RunKey, mean_runs
from undersong.types import UndersongError


@dataclass(frozen=True)
class Defense:
    """A condition of the audit: which selection trains, and which system text speaks."""

    name: str
    kind: str  # selection kind: closest | distant | random | base
    system: str  # name of the system text

    def changes(self, undefended: Defense) -> list[str]:
        """What differs from the undefended condition."""
        return [f for f in ("kind", "system") if getattr(self, f) != getattr(undefended, f)]


Run = Mapping[str, Any]
Entry = tuple[RunKey, Mapping[str, Any]]  # one set of one run, with the run's (base, draw, seed)


def price(runs: Sequence[Run], defenses: Sequence[Defense], *, last_step: int, axis: str) -> list[dict[str, Any]]:
    """One row a (fraction, training modality, defense): means over runs with t intervals, a set and prompt modality.

    `runs` are those of results.json.  The first defense is the undefended condition; a defense that changes more than
    one thing against it is an error, because its price could not be told apart.
    """
    _check_one_change(defenses)
    here = [run for run in runs if run["train_modality"] and (run["step"], run["axis"]) == (last_step, axis)]
    rows = []
    for fraction, modality in sorted({(run["fraction"], run["train_modality"]) for run in here}):
        for defense in defenses:
            wanted = (fraction, modality, defense.kind)
            chosen = [run for run in here if (run["fraction"], run["train_modality"], run["kind"]) == wanted]
            if chosen:
                facts = {"axis": axis, "fraction": fraction, "train_modality": modality, "step": last_step}
                rows.append({**facts, **_row(defense, chosen)})
    return rows


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
    attack = "non_refusal_rate" if any("non_refusal_rate" in entry for _, entry in harmful) else "jsr"
    return {
        "defense": defense.name,
        "axis": runs[0]["axis"],
        "kind": defense.kind,
        "system": defense.system,
        "runs": len(runs),
        "jsr": _by_modality(harmful, attack),
        "over_refusal": _by_set(benign, "refusal_rate"),
        "utility": _by_set(benign, "right_rate"),
        "note": None,
    }


def _entries(runs: Iterable[Run]) -> Iterator[Entry]:
    for run in runs:
        for entry in run["sets"]:
            yield (run["base_seed"], run["draw"], run["seed"]), entry


def _by_set(entries: Sequence[Entry], key: str) -> dict[str, Any]:
    names = sorted({entry["set"] for _, entry in entries})
    return {name: _by_modality([e for e in entries if e[1]["set"] == name], key) for name in names}


def _by_modality(entries: Sequence[Entry], key: str) -> dict[str, Any]:
    """Prompt modality -> {mean, low, high} over runs.  Several sets of one run (two harm sets) are averaged first."""
    rates: dict[str, dict[RunKey, list[float]]] = {}
    for run, entry in entries:
        rates.setdefault(entry["modality"], {}).setdefault(run, []).append(entry[key])
    return {
        modality: _interval({run: sum(values) / len(values) for run, values in of_runs.items()})
        for modality, of_runs in sorted(rates.items())
    }


def _interval(rates: Mapping[RunKey, float]) -> dict[str, float | None]:
    """Over independent units: runs of one base are not independent where there are several bases."""
    summary = mean_runs(rates, limits=(0.0, 1.0))
    return {"mean": summary.mean, "low": summary.low, "high": summary.high}
