"""The run-noise floor: how far trainings on the same samples differ by their seed alone."""

from __future__ import annotations

from undersong.report import words
from undersong.report.panels import Table, trained
from undersong.report.schema import Results
from undersong.report.variation import Noise

HEAD = ("Base", "trained", "asked", "runs in groups", "SD of one run, points", "95 % of pairs differ by less than")


def build(results: Results) -> Table | None:
    """None where the results say nothing of it."""
    if not results.run_noise:
        return None
    rows = tuple(_row(one) for one in results.run_noise)
    return Table("Run noise: same samples, other training seed", HEAD, rows, 3)


def _row(one: Noise) -> tuple[str, ...]:
    asked = " · ".join(filter(None, (one.set, words.spoken(one.modality) if one.modality else "")))
    names = one.model or words.NONE, trained(one.train_modality), asked
    if one.sd is None:
        return (*names, words.NONE, one.note or "not estimated", words.NONE)
    spread = " ".join(filter(None, (words.bare(one.sd), words.bracket(one.low, one.high))))
    reach = words.NONE if one.reach is None else f"{words.bare(one.reach)} points"
    return (*names, f"{one.runs} in {one.groups}", spread, reach)
