"""What the headline is about: the base, the worst arm, and what stands beside it.  Says nothing in words yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.report import words
from undersong.report.matching import Side, compared
from undersong.report.schema import Comparison, Results, models
from undersong.report.summary import Arm, Estimate, View, arms, base_runs, estimate, view


@dataclass(frozen=True, slots=True)
class Measured:
    """An arm, the system text it is asked under, and its estimate at its last step."""

    arm: Arm
    system: str
    estimate: Estimate


@dataclass(frozen=True, slots=True)
class Case:
    """`worst` is the arm with the highest mean at its last step; `others` its random and distant counterparts;
    `prompted` the worst arm again under every other system text."""

    results: Results
    view: View
    model: str
    modality: str  # of the prompts: audio | text
    base: Estimate | None
    worst: Measured | None
    others: tuple[Measured, ...]
    prompted: tuple[Measured, ...]
    measured: tuple[Measured, ...]  # every arm

    @property
    def n_arms(self) -> int:
        """How many arms were asked prompts of this modality at their last step."""
        return len(self.measured)

    @property
    def tied(self) -> bool:
        """Whether all of several arms have the same mean, so that none is the worst."""
        return self.n_arms > 1 and len({item.estimate.mean for item in self.measured}) == 1

    def against_base(self, item: Measured) -> Comparison | None:
        """The arm less the base, under the arm's system text; None where the results do not compare them."""
        return self._compared(item, Side(None, item.system))

    def against(self, item: Measured, other: Measured) -> Comparison | None:
        """The first less the second, each under its own system text; None where the results do not compare them."""
        return self._compared(item, Side(other.arm, other.system))

    def _compared(self, item: Measured, other: Side) -> Comparison | None:
        own = Side(item.arm, item.system)
        return compared(self.results, own, other, self.view.set, self.modality, item.arm.last_step)


def case(results: Results) -> Case | None:
    """The case of the prompts, spoken or typed, that fare worse; None where no harmful one was asked."""
    found = cases(results)
    return found[0] if found else None


def cases(results: Results) -> list[Case]:
    """Of spoken and of typed prompts, where asked; the one with the higher worst JSR first, spoken on a tie."""
    shown = view(results)
    if shown is None:
        return []
    asked = [m for m in ("audio", "text") if any(shown.cells([run], m) for run in results.runs)]
    found = [_case(results, shown, modality) for modality in asked or ["text"]]
    return sorted(found, key=lambda one: -one.worst.estimate.mean if one.worst else 0.0)


def _case(results: Results, shown: View, modality: str) -> Case:
    found = [(arm, estimate(shown.cells(arm.at(arm.last_step), modality))) for arm in arms(results)]
    measured = [Measured(arm, shown.system, number) for arm, number in found if number is not None]
    worst = max(measured, key=lambda item: item.estimate.mean) if measured else None
    return Case(
        results=results,
        view=shown,
        model=words.listed(models(results)) or "the model",
        modality=modality,
        base=estimate(shown.cells(base_runs(results), modality)),
        worst=worst,
        others=_counterparts(worst, measured),
        prompted=_prompted(shown, worst, modality),
        measured=tuple(measured),
    )


def _counterparts(worst: Measured | None, measured: Sequence[Measured]) -> tuple[Measured, ...]:
    """The random and the distant arm nearest in design to the worst one."""
    if worst is None:
        return ()

    def shared(item: Measured) -> tuple[bool, bool, bool]:
        a, b = item.arm, worst.arm
        return a.train_modality == b.train_modality, a.axis == b.axis, a.fraction == b.fraction

    by_kind = ([item for item in measured if item.arm.kind == kind] for kind in ("random", "distant"))
    return tuple(max(items, key=shared) for items in by_kind if items and worst not in items)


def _prompted(shown: View, worst: Measured | None, modality: str) -> tuple[Measured, ...]:
    if worst is None:
        return ()
    runs = worst.arm.at(worst.arm.last_step)
    systems = dict.fromkeys(row.system for run in runs for row in run.sets if row.set == shown.set)
    found = [(name, estimate(shown.cells(runs, modality, name))) for name in systems if name != shown.system]
    return tuple(Measured(worst.arm, name, number) for name, number in found if number is not None)
