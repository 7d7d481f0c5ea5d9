"""Which of the results' comparisons is about these two arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from undersong.report.schema import Comparison, Results
from undersong.report.summary import Arm

_FIELDS = ("arm", "kind", "axis", "fraction", "train_modality", "system")


@dataclass(frozen=True, slots=True)
class Side:
    """An arm, or the base (`arm` None), under one system text."""

    arm: Arm | None
    system: str

    def fits(self, given: Mapping[str, Any]) -> bool:
        """Whether a comparison's side can be this one: it names an arm or a kind, and nothing in it contradicts.

        A side without either names its arm by its label.
        """
        own: dict[str, Any] = {"arm": "base", "kind": "base", "system": self.system}
        if self.arm is not None:
            own |= {field: getattr(self.arm, field) for field in ("kind", "axis", "fraction", "train_modality")}
            own["arm"] = self.arm.name
        named = {field: given[field] for field in _FIELDS if given.get(field) is not None}
        if "arm" not in named and "kind" not in named:
            named["arm"] = given.get("label")
        return all(value == own.get(field) for field, value in named.items())


def compared(results: Results, a: Side, b: Side, set: str, modality: str, step: int) -> Comparison | None:
    """The comparison of a with b on this set, its numbers turned to a - b; recipe scope first.

    One of scope `model` is about one run, so it decides only for arms that have no other.
    """
    several = any(side.arm is not None and len(side.arm.at(step)) > 1 for side in (a, b))
    for comparison in sorted(results.comparisons, key=lambda item: item.scope != "recipe"):
        about = zip((comparison.set, comparison.modality, comparison.step), (set, modality, step), strict=True)
        if any(given not in (None, wanted) for given, wanted in about):
            continue
        if several and comparison.scope != "recipe":
            continue
        if comparison.metric not in ("jsr", "non_refusal_rate") or not _systems(comparison, a, b):
            continue
        if a.fits(comparison.a) and b.fits(comparison.b):
            return comparison if comparison.minuend == "a" else _turned(comparison)
        if a.fits(comparison.b) and b.fits(comparison.a):
            return comparison if comparison.minuend == "b" else _turned(comparison)
    return None


def _systems(comparison: Comparison, a: Side, b: Side) -> bool:
    """A comparison across system texts says so on its sides; any other is within one system text."""
    if a.system != b.system:
        return {comparison.a.get("system"), comparison.b.get("system")} == {a.system, b.system}
    return comparison.system in (None, a.system)


def _turned(comparison: Comparison) -> Comparison:
    def minus(value: float | None) -> float | None:
        return None if value is None else -value

    return comparison.model_copy(
        update={
            "difference": minus(comparison.difference),
            "low": minus(comparison.high),
            "high": minus(comparison.low),
        }
    )
