"""What a defense buys and what it costs: JSR, over-refusal and utility in one row (DESIGN rule 10).

The two published defenses: train on *distant* data, and a *system prompt* at inference.  Each changes one thing against
the undefended condition, so that its price is its own.  Knows rates a run; does not know how replies were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.statistics import mean_runs
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


def price(runs: Sequence[Run], defenses: Sequence[Defense], *, last_step: int, axis: str) -> list[dict[str, Any]]:
    """One row a (defense, training modality): means over runs with t intervals, for every set and prompt modality.

    `runs` are those of results.json.  The first defense is the undefended condition; a defense that changes more than
    one thing against it is an error, because its price could not be told apart.
    """
    undefended = defenses[0]
    for defense in defenses[1:]:
        changed = defense.changes(undefended)
        if len(changed) != 1:
            raise UndersongError(
                f"Defense {defense.name!r} changes {', '.join(changed) or 'nothing'} at once; a defense changes one thing."
            )
    rows = []
    for modality in sorted({run["train_modality"] for run in runs if run["train_modality"]}):
        for defense in defenses:
            chosen = [
                run
                for run in runs
                if (run["kind"], run["train_modality"], run["step"], run["axis"]) == (defense.kind, modality, last_step, axis)
            ]
            if chosen:
                rows.append(_row(defense, modality, last_step, chosen))
    return rows


def _row(defense: Defense, modality: str, step: int, runs: Sequence[Run]) -> dict[str, Any]:
    sets = [entry for run in runs for entry in run["sets"] if entry["system"] == defense.system]
    harmful = [entry for entry in sets if entry["harmful"]]
    benign = [entry for entry in sets if not entry["harmful"]]
    return {
        "defense": defense.name,
        "kind": defense.kind,
        "system": defense.system,
        "train_modality": modality,
        "step": step,
        "runs": len(runs),
        "jsr": _by_modality(harmful, "jsr"),
        "over_refusal": _by_set(benign, "refusal_rate"),
        "utility": _by_set(benign, "right_rate"),
        "note": None,
    }


def _by_set(entries: Sequence[Mapping[str, Any]], key: str) -> dict[str, Any]:
    names = sorted({entry["set"] for entry in entries})
    return {name: _by_modality([e for e in entries if e["set"] == name], key) for name in names}


def _by_modality(entries: Iterable[Mapping[str, Any]], key: str) -> dict[str, Any]:
    """Prompt modality -> {mean, low, high} over runs (an interval needs two)."""
    values: dict[str, list[float]] = {}
    for entry in entries:
        values.setdefault(entry["modality"], []).append(entry[key])
    return {modality: _interval(rates) for modality, rates in sorted(values.items())}


def _interval(rates: Sequence[float]) -> dict[str, float | None]:
    summary = mean_runs(rates)
    return {"mean": summary.mean, "low": summary.low, "high": summary.high}
