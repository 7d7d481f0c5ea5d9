"""Do judges agree?  On the same replies, on what a rate counts."""

from __future__ import annotations

from undersong.report import formatting
from undersong.report.judged import JudgeAgreement
from undersong.report.tables import Table
from undersong.results.schema import Results

AGREEMENT_HEADINGS = (
    *("Judges", "set", "counted", "n", "both", "first only", "second only", "neither", "no verdict"),
    "kappa [interval]",
)


def build_judge_agreement(results: Results) -> Table | None:
    """None where one judge alone was asked."""
    rows = tuple(_judge_agreement_row(agreement) for agreement in results.judges)
    return Table("Agreement of judges on the same replies", AGREEMENT_HEADINGS, rows, 3) if rows else None


def _judge_agreement_row(agreement: JudgeAgreement) -> tuple[str, ...]:
    counts = (
        f"{count:,}"
        for count in (
            agreement.n,
            agreement.both,
            agreement.only_a,
            agreement.only_b,
            agreement.neither,
            agreement.left_out,
        )
    )
    return f"{agreement.a} / {agreement.b}", agreement.set or "", agreement.counted or "", *counts, _kappa(agreement)


def _kappa(agreement: JudgeAgreement) -> str:
    if agreement.kappa is None or agreement.kappa.value is None:
        return "not defined"
    center, low, high = (
        formatting.decimal(number, 2) for number in (agreement.kappa.value, agreement.kappa.low, agreement.kappa.high)
    )
    return center if agreement.kappa.low is None else f"{center} [{low},{formatting.NBSP}{high}]"


def build_judge_disagreements(results: Results) -> Table | None:
    """Replies that two judges count differently, as far as the results list them; None where there are none."""
    rows = tuple(
        (
            disagreement.prompt_id, f"{agreement.a} / {agreement.b}", agreement.set or "", disagreement.arm,
            formatting.value_text(disagreement.seed), formatting.value_text(disagreement.step), formatting.modality_label(disagreement.modality), disagreement.system or "", disagreement.a, disagreement.b,
        )
        for agreement in results.judges
        for disagreement in agreement.disagreements
    )  # fmt: skip
    head = ("Prompt", "Judges", "set", "Arm", "seed", "step", "asked", "system", "first judge", "second judge")
    return Table("Replies that two judges count differently", head, rows, len(head)) if rows else None
