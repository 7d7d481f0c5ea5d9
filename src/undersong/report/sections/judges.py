"""Do judges agree?  On the same replies, on what a rate counts."""

from __future__ import annotations

from undersong.report import words
from undersong.report.judged import Judges
from undersong.report.panels import Table
from undersong.report.schema import Results

HEAD = (
    *("Judges", "set", "counted", "n", "both", "first only", "second only", "neither", "no verdict"),
    "kappa [interval]",
)


def build(results: Results) -> Table | None:
    """None where one judge alone was asked."""
    rows = tuple(_row(one) for one in results.judges)
    return Table("Agreement of judges on the same replies", HEAD, rows, 3) if rows else None


def _row(one: Judges) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (one.n, one.both, one.only_a, one.only_b, one.neither, one.left_out))
    return f"{one.a} / {one.b}", one.set or "", one.counted or "", *counts, _kappa(one)


def _kappa(one: Judges) -> str:
    if one.kappa is None or one.kappa.value is None:
        return "not defined"
    middle, low, high = (words.decimal(number, 2) for number in (one.kappa.value, one.kappa.low, one.kappa.high))
    return middle if one.kappa.low is None else f"{middle} [{low},{words.NBSP}{high}]"


def apart(results: Results) -> Table | None:
    """Replies that two judges count differently, as far as the results list them; None where there are none."""
    rows = tuple(
        (
            one.prompt_id, f"{pair.a} / {pair.b}", pair.set or "", one.arm,
            words.plain(one.seed), words.plain(one.step), words.spoken(one.modality), one.system or "", one.a, one.b,
        )
        for pair in results.judges
        for one in pair.disagreements
    )  # fmt: skip
    head = ("Prompt", "Judges", "set", "Arm", "seed", "step", "asked", "system", "first judge", "second judge")
    return Table("Replies that two judges count differently", head, rows, len(head)) if rows else None
