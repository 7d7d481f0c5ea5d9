"""Tables of tests on the late-layer refusal gap: closest against distant, trained by probed modality, harm
recognition, and correlation with JSR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from undersong.pages import formatting
from undersong.pages.tables import Table
from undersong.results.schema_mechanism import (
    HarmRecognition,
    LateGapComparison,
    LateSuppression,
    MechanismRecord,
    ModalityAsymmetry,
)
from undersong.results.schema_outcomes import ProximityVsJsrRecord

SUPPRESSION_LABELS = {
    "late": "late",
    "early": "early rather than late",
    "undecided": "undecided",
    "too shallow": "not tested: too few layers",
}
RECOGNITION_LABELS = {
    "retained": "still recognized",
    "lost": "recognized less",
    "absent": "not shown before",
    "undecided": "undecided",
}
RECOGNITION_HEADINGS = (
    "Kind",
    "Base",
    "trained on",
    "probed",
    "in these models harm is",
    "after this way of training",
    "before",
    "after",
    "change, points",
    "refused, points",
)
COMPARISON_HEADINGS = ("Question", "Base", "probed", "difference", "unadjusted 95 %", "p", "adjusted p", "n")
MODALITY_HEADINGS = ("Kind", "Base", "trained on", "spoken prompts", "95 %", "typed prompts", "95 %")
SUPPRESSION_HEADINGS = (
    "Kind",
    "Base",
    "trained on",
    "probed",
    "late − early",
    "95 %",
    "p",
    "adjusted p",
    "n",
    "suppression is",
)
GAP_VS_JSR_HEADINGS = ("Base", "prompts", "arms", "rank correlation", "points a standard deviation")


def build_mechanism_tables(mechanism: MechanismRecord, rate: str) -> Iterator[Table]:
    """Build the tables of mechanism tests, empty if a study lacks one side; `rate` is the page's name for the JSR."""
    asymmetry_headings = ("Kind", "Base", "probed", "late gap", "95 %", f"{rate}, points", "95 %", "opposite signs")
    yield Table(
        "Late refusal gap: closest minus distant data (negative: closest lowers it more)",
        COMPARISON_HEADINGS,
        tuple(map(_comparison_row, mechanism.late_gap_comparisons)),
        3,
    )
    yield Table(
        "Change of the late gap: trained on one modality, probed with each",
        MODALITY_HEADINGS,
        tuple(_modality_rows(mechanism)),
        3,
    )
    yield Table(
        "Is the suppression late? Change of the gap in the last third of layers minus that in the first third",
        SUPPRESSION_HEADINGS,
        tuple(map(_suppression_row, mechanism.late_suppression)),
        4,
    )
    yield Table(
        f"Audio-trained minus text-trained: late refusal gap and {rate}",
        asymmetry_headings,
        tuple(map(_asymmetry_row, mechanism.modality_asymmetry)),
        3,
    )
    yield harm_recognition_table(mechanism.harm_recognition)
    yield Table(
        f"Late refusal gap vs. {rate} across arms",
        GAP_VS_JSR_HEADINGS,
        tuple(row for record in mechanism.gap_vs_jsr for row in _gap_vs_jsr_rows(record)),
        2,
    )


def harm_recognition_table(recognitions: Sequence[HarmRecognition]) -> Table:
    """Build the table of harm recognition by late-layer probes, before and after tuning."""
    margin = next((recognition.equivalence_margin for recognition in recognitions), None)
    margin_note = "" if margin is None else f"; still recognized: a loss of {100 * margin:g} points is excluded"
    return Table(
        f"Harm recognition: balanced accuracy of late probes on held-out prompts{margin_note}",
        RECOGNITION_HEADINGS,
        tuple(map(_recognition_row, recognitions)),
        6,
    )


def _recognition_row(recognition: HarmRecognition) -> tuple[str, ...]:
    change_text = _points_interval(recognition.change, recognition.low, recognition.high) + (
        " over prompts" if recognition.interval_over == "prompts" else ""
    )
    label = f"{RECOGNITION_LABELS[recognition.outcome]}{', refused less' if recognition.dissociated else ''}"
    in_runs = recognition.in_runs_outcome
    return (
        recognition.kind,
        recognition.model,
        recognition.train_modality,
        formatting.modality_label(recognition.modality),
        formatting.MISSING if in_runs is None else RECOGNITION_LABELS[in_runs],
        label,
        formatting.percent(recognition.before),
        formatting.percent(recognition.after),
        change_text,
        _points_interval(
            recognition.refusal_rate_change, recognition.refusal_rate_change_low, recognition.refusal_rate_change_high
        ),
    )


def _points_interval(value: float | None, low: float | None, high: float | None) -> str:
    return " ".join(filter(None, (formatting.points(value), formatting.bracket(low, high))))


def _comparison_row(comparison: LateGapComparison) -> tuple[str, ...]:
    return (
        comparison.question,
        comparison.model,
        formatting.modality_label(comparison.modality),
        formatting.decimal(comparison.difference),
        _interval_text(comparison.low, comparison.high),
        formatting.p_value(comparison.p),
        formatting.p_value(comparison.p_adjusted),
        str(comparison.n),
    )


def _modality_rows(mechanism: MechanismRecord) -> Iterator[tuple[str, ...]]:
    changes_by_condition = {
        (gap_change.model, gap_change.kind, gap_change.train_modality, gap_change.modality): gap_change
        for gap_change in mechanism.late_gap_by_modality
    }
    for model, kind, train_modality in dict.fromkeys(key[:3] for key in changes_by_condition):
        row = [kind, model, train_modality]
        for prompt_modality in ("audio", "text"):
            late_gap_change = changes_by_condition.get((model, kind, train_modality, prompt_modality))
            row += (
                [formatting.decimal(late_gap_change.change), _interval_text(late_gap_change.low, late_gap_change.high)]
                if late_gap_change
                else [formatting.MISSING, formatting.MISSING]
            )
        yield tuple(row)


def _suppression_row(suppression: LateSuppression) -> tuple[str, ...]:
    return (
        suppression.kind,
        suppression.model,
        suppression.train_modality,
        formatting.modality_label(suppression.modality),
        formatting.decimal(suppression.late_minus_early),
        _interval_text(suppression.low, suppression.high),
        formatting.p_value(suppression.p),
        formatting.p_value(suppression.p_adjusted),
        str(suppression.n),
        SUPPRESSION_LABELS[suppression.outcome],
    )


def _asymmetry_row(asymmetry: ModalityAsymmetry) -> tuple[str, ...]:
    sign_label = {True: "yes", False: "no", None: "within noise"}[asymmetry.opposite_signs]
    jsr_cells = (
        formatting.points(asymmetry.rate_change),
        formatting.bracket(asymmetry.rate_change_low, asymmetry.rate_change_high) or formatting.MISSING,
    )
    late_gap_cells = (
        formatting.decimal(asymmetry.late_gap),
        _interval_text(asymmetry.late_gap_low, asymmetry.late_gap_high),
    )
    return (
        asymmetry.kind,
        asymmetry.model,
        formatting.modality_label(asymmetry.modality),
        *late_gap_cells,
        *jsr_cells,
        sign_label,
    )


def _gap_vs_jsr_rows(record: ProximityVsJsrRecord) -> Iterator[tuple[str, ...]]:
    if not record.predictors:
        names = record.model, formatting.modality_label(record.modality), str(record.points)
        yield *names, record.note or formatting.MISSING, formatting.MISSING
    for predictor in record.predictors:
        correlation = predictor.rank_correlation
        rank = f"{formatting.decimal(correlation.value, 2)} {_interval_text(correlation.low, correlation.high, 2)}"
        slope = (
            f"{formatting.points(predictor.slope.value)} "
            f"{formatting.bracket(predictor.slope.low, predictor.slope.high)}"
        )
        yield (
            record.model,
            formatting.modality_label(record.modality),
            str(record.points),
            rank,
            slope,
        )


def _interval_text(low: float | None, high: float | None, decimals: int = 3) -> str:
    if low is None or high is None:
        return formatting.MISSING
    return f"[{formatting.decimal(low, decimals)}, {formatting.decimal(high, decimals)}]"
