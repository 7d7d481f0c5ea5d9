"""Screening results known before any training: axis fingerprints, screening scores, their relation to JSR, and corpus
overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import LinearScale, PlotFrame, interval_strip, percent_axis, tag, ticks
from undersong.pages.tables import NumberCell, Panel, Table, number_cell, percent_cell, training_label
from undersong.report.summary import rate_name
from undersong.results.schema import Results
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_screening import (
    AxisFingerprintRecord,
    AxisPair,
    ScoreVsJsrRecord,
    ScreeningScoreRecord,
)
from undersong.statistics.regression import MIN_RANK_POINTS, too_few_points

HEIGHT = 190
MEASURES = (("spearman", "rank correlation"), ("overlap", "overlap of the closest quarter"), ("cka", "CKA"))


@dataclass(frozen=True, slots=True)
class AxisAgreementRow:
    """A reference axis compared with a model's own axis: rank correlation as a chart, other measures as text."""

    axis: str
    picture: Markup
    cells: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AxisFingerprintTable:
    """The fingerprint of one model's own axis."""

    title: str
    verdict: str
    lines: tuple[AxisAgreementRow, ...]
    n: str


@dataclass(frozen=True, slots=True)
class ScreeningSection:
    """Content of the screening section; each part may be empty."""

    fingerprints: tuple[AxisFingerprintTable, ...]
    scores: Table
    panels: tuple[Panel, ...]
    score_vs_jsr: Table
    rate: str  # JSR, or non-refusal rate if the judge sees refusals only
    overlap: Table


def build_screening(results: Results) -> ScreeningSection | None:
    """Build the section of screening results; None if the results contain none."""
    if not (results.axis_fingerprints or results.screening_scores or results.score_vs_jsr or results.corpus_overlap):
        return None
    several_models, rate = len({fingerprint.model for fingerprint in results.axis_fingerprints}) > 1, rate_name(results)
    overlap = tuple(
        (corpus_overlap.corpus_a, corpus_overlap.corpus_b, corpus_overlap.kind, f"{corpus_overlap.pairs:,}")
        for corpus_overlap in results.corpus_overlap
    )
    return ScreeningSection(
        fingerprints=tuple(
            _fingerprint_table(fingerprint, several_models)
            for fingerprint in results.axis_fingerprints
            if fingerprint.pairs
        ),
        scores=_score_table(results.screening_scores),
        panels=tuple(_score_vs_jsr_panels(results.score_vs_jsr, rate)),
        score_vs_jsr=_score_vs_jsr_table(results.score_vs_jsr, rate),
        rate=rate,
        overlap=Table("Items that two corpora share or nearly share", ("Corpus", "and", "what", "pairs"), overlap, 3),
    )


def _fingerprint_table(fingerprint: AxisFingerprintRecord, several_models: bool) -> AxisFingerprintTable:
    leading_axes = {label: axis for key, label in MEASURES if (axis := fingerprint.dominant_axis.get(key))}
    axis_label = (
        f"{fingerprint.model}, axis {fingerprint.internal_axis}"
        if several_models and fingerprint.model
        else f"Axis {fingerprint.internal_axis}"
    )
    if not leading_axes:
        verdict = "goes along with no reference axis more than with the others, as far as this pool can tell."
    else:
        leaders = [f"{axis} by {label}" for label, axis in leading_axes.items()]
        verdict = f"goes along most with {formatting.join_items(leaders)}; by the other measures no axis leads clearly."
        verdict = (
            verdict if len(leading_axes) < len(MEASURES) else f"goes along most with {formatting.join_items(leaders)}."
        )
    n = next(
        (
            f"{formatting.count(pair.n, 'sample')} in {formatting.count(pair.clusters, 'group')}"
            for pair in fingerprint.pairs
        ),
        "",
    )
    return AxisFingerprintTable(axis_label, verdict, tuple(_agreement_row(pair) for pair in fingerprint.pairs), n)


def _agreement_row(pair: AxisPair) -> AxisAgreementRow:
    value = pair.spearman
    picture = interval_strip(value.value, value.low, value.high, LinearScale((-1.0, 1.0), (2, 98)), None, reference=0.0)
    overlap = f"{_interval_text(pair.overlap)} (chance {formatting.decimal(pair.chance, 2)})"
    cka = _interval_text(pair.cka or ValueWithInterval())
    return AxisAgreementRow(pair.axis_a, picture, (_interval_text(pair.spearman), overlap, cka))


def _interval_text(estimate: ValueWithInterval) -> str:
    if estimate.low is None or estimate.high is None:
        return formatting.decimal(estimate.value, 2)
    low, high = formatting.decimal(estimate.low, 2), formatting.decimal(estimate.high, 2)
    return f"{formatting.decimal(estimate.value, 2)} [{low},{formatting.NBSP}{high}]"


def _score_table(scores: list[ScreeningScoreRecord]) -> Table:
    head = ("Axis", "model", "score [interval]", "held-out benign [interval]", "pool / benign reference / held out")
    rows = tuple(
        (
            score.axis,
            score.model,
            _interval_text(score.value),
            _interval_text(score.held_out),
            " / ".join(f"{n:,}" for n in (score.n.pool, score.n.benign_reference, score.n.held_out)),
        )
        for score in scores
    )
    return Table("Screening score of the pool", head, rows, 2)


def _score_vs_jsr_panels(records: list[ScoreVsJsrRecord], rate: str) -> Iterator[Panel]:
    """One an axis, model, modality of training and set."""
    varying = [len({getattr(record, key) for record in records}) > 1 for key in ("model", "prompt_set")]
    for record in records:
        points = [(p.score, p.rate, p.arm) for p in record.points]
        if not points:
            continue
        panel_labels = [str(name) for name, is_varying in zip((record.model, record.prompt_set), varying) if is_varying]
        title = ", ".join([f"{record.axis} axis", *panel_labels, training_label(record.train_modality).lower()])
        correlation_text = f"ρ = {_interval_text(record.spearman)}"
        if record.spearman.value is None:
            is_few = record.n < MIN_RANK_POINTS
            correlation_text = too_few_points(record.n).rstrip(".") if is_few else "all are alike"
        yield Panel(
            f"{formatting.capitalize_first(title)}: {correlation_text}, n = {record.n}",
            _score_vs_jsr_plot(points, title, rate),
        )


def _score_vs_jsr_table(records: list[ScoreVsJsrRecord], rate: str) -> Table:
    head = (
        "Selection",
        "Axis of the score",
        "Model",
        "Trained on",
        "Set",
        "score",
        f"{formatting.capitalize_first(rate)}, %",
        "runs",
    )

    def rows() -> Iterator[tuple[str | NumberCell, ...]]:
        for record in records:
            record_cells = (record.axis, record.model, record.train_modality, record.prompt_set)
            for point in record.points:
                yield (
                    point.arm,
                    *record_cells,
                    number_cell(point.score),
                    percent_cell(point.rate),
                    str(point.n_runs),
                )

    return Table(f"Score of each selection, and mean {rate} after training on it", head, tuple(rows()), names=5)


def _score_vs_jsr_plot(points: list[tuple[float, float, str]], title: str, rate: str) -> Markup:
    xs = [x for x, _, _ in points]
    margin = 0.12 * ((max(xs) - min(xs)) or 0.2)
    domain = (min(xs) - margin, max(xs) + margin)
    top, y_ticks = percent_axis(max(y for _, y, _ in points))
    frame = PlotFrame.from_domains(domain, (0.0, top), HEIGHT)
    x_values = ticks(*domain, 4)
    x_ticks = [(value, formatting.decimal(value, formatting.decimals_needed(x_values))) for value in x_values]
    elements = [frame.grid(y_ticks), frame.x_axis(x_ticks, "screening score of the training samples")]
    if domain[0] < 0 < domain[1]:
        x = f"{frame.x(0.0):.2f}%"
        elements.append(tag("line", x1=x, x2=x, y1="0", y2=frame.height, class_="level k-base"))
    for x_value, y_value, arm in points:
        description = f"{arm}: score {formatting.decimal(x_value)}, {rate} {formatting.percent(y_value)}"
        elements.append(frame.dot(x_value, y_value, arm.split("/")[1] if "/" in arm else None, description, "run-dot"))
    point_texts = "; ".join(f"{arm} at {formatting.decimal(x)}: {formatting.percent(y)}" for x, y, arm in points)
    return frame.draw(elements, f"{formatting.capitalize_first(rate)} against screening score, {title}. {point_texts}.")
