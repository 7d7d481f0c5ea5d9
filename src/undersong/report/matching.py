"""Which of the results' comparisons is about these two arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from undersong.report.summary import ArmSummary
from undersong.results.schema import ComparisonRecord, Results

_IDENTITY_FIELDS = ("arm", "kind", "axis", "fraction", "train_modality", "system")


@dataclass(frozen=True, slots=True)
class ArmCondition:
    """An arm, or the base (`arm` None), under one system text."""

    arm: ArmSummary | None
    system: str

    def matches(self, stored: Mapping[str, Any]) -> bool:
        """Whether a comparison's side can be this one: it names an arm or a kind, and nothing in it contradicts.

        A side without either names its arm by its label.
        """
        identity: dict[str, Any] = {"arm": "base", "kind": "base", "system": self.system}
        if self.arm is not None:
            identity |= {field: getattr(self.arm, field) for field in ("kind", "axis", "fraction", "train_modality")}
            identity["arm"] = self.arm.name
        stored_identity = {field: stored[field] for field in _IDENTITY_FIELDS if stored.get(field) is not None}
        if "arm" not in stored_identity and "kind" not in stored_identity:
            stored_identity["arm"] = stored.get("label")
        return all(value == identity.get(field) for field, value in stored_identity.items())


def find_comparison(
    results: Results, a: ArmCondition, b: ArmCondition, set: str, modality: str, step: int
) -> ComparisonRecord | None:
    """The comparison of a with b on this set, its numbers turned to a - b; recipe scope first.

    One of scope `model` is about one run, so it decides only for arms that have no other.
    """
    has_several_runs = any(side.arm is not None and len(side.arm.runs_at(step)) > 1 for side in (a, b))
    for comparison in sorted(results.comparisons, key=lambda item: item.scope != "recipe"):
        scope_pairs = zip((comparison.set, comparison.modality, comparison.step), (set, modality, step), strict=True)
        if any(stored not in (None, requested) for stored, requested in scope_pairs):
            continue
        if has_several_runs and comparison.scope != "recipe":
            continue
        if comparison.metric not in ("jsr", "non_refusal_rate") or not _system_prompts_match(comparison, a, b):
            continue
        if a.matches(comparison.a) and b.matches(comparison.b):
            return comparison if comparison.minuend == "a" else _negated(comparison)
        if a.matches(comparison.b) and b.matches(comparison.a):
            return comparison if comparison.minuend == "b" else _negated(comparison)
    return None


def _system_prompts_match(comparison: ComparisonRecord, a: ArmCondition, b: ArmCondition) -> bool:
    """A comparison across system texts says so on its sides; any other is within one system text."""
    if a.system != b.system:
        return {comparison.a.get("system"), comparison.b.get("system")} == {a.system, b.system}
    return comparison.system in (None, a.system)


def _negated(comparison: ComparisonRecord) -> ComparisonRecord:
    def negate(value: float | None) -> float | None:
        return None if value is None else -value

    return comparison.model_copy(
        update={
            "difference": negate(comparison.difference),
            "low": negate(comparison.high),
            "high": negate(comparison.low),
        }
    )
