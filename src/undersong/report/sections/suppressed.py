"""What the change of the late gap says over runs: closest against distant, trained by probed, beside the JSR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from undersong.report import words
from undersong.report.inside import Asymmetry, Claim, Mechanism, Recognition
from undersong.report.panels import Table
from undersong.report.variation import Predicts

SAID = {"kept": "still recognised", "lost": "recognised less", "absent": "not shown before", "open": "open"}
KNOWN = ("Kind", "Base", "trained on", "probed", "harm is", "before", "after", "change, points", "refused, points")
CLAIMS = ("Question", "Base", "probed", "difference", "95 %", "p", "corrected p", "n")
CELLS = ("Kind", "Base", "trained on", "spoken prompts", "95 %", "typed prompts", "95 %")
ALONG = ("Base", "probed and asked", "arms", "rank correlation", "points a standard deviation")


def build(mechanism: Mechanism, rate: str) -> Iterator[Table]:
    """Tables without a row where a study does not have both sides.  `rate`: what the page calls what gets through."""
    mirrored = ("Kind", "Base", "probed", "late gap", "95 %", f"{rate}, points", "95 %", "opposite signs")
    yield Table("Late gap, closest less distant data (negative: closest suppresses more)", CLAIMS,
                tuple(map(_claim, mechanism.claims)), 3)  # fmt: skip
    yield Table("Change of the late gap: trained on one modality, probed with each", CELLS, tuple(_cells(mechanism)), 3)
    yield Table("Trained on audio less trained on text: does the late gap mirror it?", mirrored,
                tuple(map(_mirrored, mechanism.asymmetry)), 3)  # fmt: skip
    yield known(mechanism.recognition)
    yield Table(f"Does the loss of the late gap go along with the rise of the {rate}, over arms?", ALONG,
                tuple(row for one in mechanism.with_jsr for row in _along(one)), 2)  # fmt: skip


def known(found: Sequence[Recognition]) -> Table:
    """Whether harm is still told from harmless where it is refused less."""
    margin = next((one.margin for one in found if one.margin is not None), None)
    about = "" if margin is None else f"; still recognised: a loss of {100 * margin:g} points is excluded"
    return Table(f"Is harm still recognised? Balanced accuracy of late probes on held-out prompts{about}", KNOWN,
                 tuple(map(_known, found)), 5)  # fmt: skip


def _known(one: Recognition) -> tuple[str, ...]:
    changed = _points(one.change, one.low, one.high) + (" over prompts" if one.over == "prompts" else "")
    said = f"{SAID.get(one.recognition, one.recognition)}{', refused less' if one.dissociated else ''}"
    return (
        one.kind, one.model or words.NONE, one.train_modality or words.NONE, words.spoken(one.modality), said,
        words.percent(one.before), words.percent(one.after), changed,
        _points(one.refusals, one.refusals_low, one.refusals_high),
    )  # fmt: skip


def _points(value: float | None, low: float | None, high: float | None) -> str:
    return " ".join(filter(None, (words.points(value), words.bracket(low, high))))


def _claim(one: Claim) -> tuple[str, ...]:
    return (
        one.question, one.model or words.NONE, words.spoken(one.modality), words.decimal(one.difference),
        _ends(one.low, one.high), words.probability(one.p), words.probability(one.p_adjusted), str(one.n or words.NONE),
    )  # fmt: skip


def _cells(mechanism: Mechanism) -> Iterator[tuple[str, ...]]:
    found = {(one.model, one.kind, one.train_modality, one.modality): one for one in mechanism.cells}
    for model, kind, trained in dict.fromkeys(key[:3] for key in found):
        row = [kind, model or words.NONE, trained or words.NONE]
        for probed in ("audio", "text"):
            cell = found.get((model, kind, trained, probed))
            row += [words.decimal(cell.change), _ends(cell.low, cell.high)] if cell else [words.NONE, words.NONE]
        yield tuple(row)


def _mirrored(one: Asymmetry) -> tuple[str, ...]:
    said = {True: "yes", False: "no", None: "within noise"}[one.mirrors]
    jsr = words.points(one.jsr), words.bracket(one.jsr_low, one.jsr_high) or words.NONE
    late = words.decimal(one.late), _ends(one.late_low, one.late_high)
    return one.kind, one.model or words.NONE, words.spoken(one.modality), *late, *jsr, said


def _along(one: Predicts) -> Iterator[tuple[str, ...]]:
    for axis in one.predictors:
        rank = f"{words.decimal(axis.rank.value, 2)} {_ends(axis.rank.low, axis.rank.high, 2)}"
        slope = f"{words.points(axis.slope.value)} {words.bracket(axis.slope.low, axis.slope.high)}"
        yield one.model or words.NONE, words.spoken(one.modality), str(one.points), rank, slope


def _ends(low: float | None, high: float | None, places: int = 3) -> str:
    if low is None or high is None:
        return words.NONE
    return f"[{words.decimal(low, places)}, {words.decimal(high, places)}]"
