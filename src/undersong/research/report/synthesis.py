"""The HTML page of a synthesis of several studies, with one forest plot for the prompts of each modality."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markupsafe import Markup

from undersong.escaping import escaped_json
from undersong.pages import formatting
from undersong.pages.layout import encode_html, render_layout
from undersong.pages.svg import difference_strip, summary_strip, symmetric_limit
from undersong.pages.tables import NumberCell, Table
from undersong.report.sections.comparisons import mixed_model_sentence
from undersong.results.schema_synthesis import Synthesis, SynthesisAnalysis, SynthesisEstimate
from undersong.settings.judge_names import RATE_LABELS
from undersong.store.atomic import write_atomic

CONTENTS = (("forest", "Synthesis"), ("studies", "Studies"))
ESTIMATE_HEADINGS = ("Study", "Base", "Difference, points [95 %]", "Runs", "Weight, %")


@dataclass(frozen=True, slots=True)
class ForestRow:
    """One estimate of a forest plot; `note` says what it rests on."""

    label: str
    note: str
    difference: str
    interval: str
    picture: Markup


@dataclass(frozen=True, slots=True)
class Forest:
    """The forest plot of one modality, with sentences on the mean, on heterogeneity and on the mixed model."""

    title: str
    rate: str
    sentences: tuple[str, ...]
    rows: tuple[ForestRow, ...]
    summary: ForestRow
    ticks: tuple[tuple[float, str], ...]
    numbers: Table
    notes: tuple[str, ...]


def render_synthesis_html(synthesis: Synthesis) -> str:
    """Render a synthesis as one HTML document."""
    return render_layout(
        "synthesis/",
        title=f"Synthesis of {formatting.count(len(synthesis.studies), 'study', 'studies')}",
        models=(),
        contents=CONTENTS,
        synthesis=synthesis,
        forests=[_forest(analysis) for analysis in synthesis.analyses],
        apart=[study for study in synthesis.studies if study.differences],
        origin=_origin_table(synthesis),
    )


def write_synthesis(synthesis: Synthesis, page: Path, data: Path) -> None:
    """Write the page and synthesis.json, each completely or not at all."""
    content = escaped_json(synthesis.model_dump(mode="json"), indent=1)
    write_atomic(data, content.encode() + b"\n")
    write_atomic(page, encode_html(render_synthesis_html(synthesis)))


def synthesis_sentences(analysis: SynthesisAnalysis) -> Iterator[str]:
    """Yield what a reader needs: mean, heterogeneity, prediction and the mixed model, each as one sentence."""
    units = formatting.count(analysis.units, analysis.unit, "bases" if analysis.unit == "base" else "studies")
    interval = formatting.bracket(analysis.low, analysis.high)
    mean = f"Mean over {units}: {formatting.points(analysis.mean)} points"
    yield f"{mean} {interval}, p {formatting.p_value_relation(analysis.p)}." if interval else f"{mean}, no interval."
    if (spread := analysis.heterogeneity) is not None:
        yield (
            f"Heterogeneity: true effects differ with a standard deviation (tau) of {100 * spread.tau:.1f} points; "
            f"I² is {100 * spread.i_squared:.0f} %, Q is {spread.q:.1f} on {spread.df} degrees of freedom "
            f"(p {formatting.p_value_relation(spread.p)})."
        )
    if analysis.prediction_low is not None:
        ends = formatting.bracket(analysis.prediction_low, analysis.prediction_high)
        yield f"The true effect in one more {analysis.unit} lies in {ends} points (95 % prediction interval)."
    if analysis.mixed_model is not None:
        yield mixed_model_sentence(analysis.mixed_model)


def estimate_cells(estimate: SynthesisEstimate) -> tuple[str, str, str, str, str]:
    """Return an estimate as text cells under `ESTIMATE_HEADINGS`."""
    difference = " ".join(
        filter(None, (formatting.points(estimate.difference), formatting.bracket(estimate.low, estimate.high)))
    )
    return estimate.study, estimate.model, difference, str(estimate.runs), f"{100 * estimate.weight:.0f}"


def arms_sentences(analysis: SynthesisAnalysis) -> list[str]:
    """Return one sentence on the arms that are averaged, or one a study if they differ."""
    arms = {estimate.study: formatting.join_items(estimate.arms) for estimate in analysis.estimates}
    if len(set(arms.values())) == 1:
        return [f"Mean over the arms {next(iter(arms.values()))}."]
    return [f"In {study}, mean over the arms {names}." for study, names in arms.items()]


def _forest(analysis: SynthesisAnalysis) -> Forest:
    ends = [end for e in analysis.estimates for end in (e.difference, e.low, e.high)]
    limit = symmetric_limit(
        [*ends, analysis.low, analysis.high, analysis.prediction_low, analysis.prediction_high, analysis.mean]
    )
    summary = ForestRow(
        label="Mean",
        note=formatting.count(analysis.units, analysis.unit, "bases" if analysis.unit == "base" else "studies"),
        difference=formatting.points(analysis.mean),
        interval=formatting.bracket(analysis.low, analysis.high),
        picture=summary_strip(
            analysis.mean,
            (analysis.low, analysis.high),
            (analysis.prediction_low, analysis.prediction_high),
            limit,
        ),
    )
    ticks = tuple((place, f"{formatting.points(value * limit)}") for place, value in ((0, -1), (50, 0), (100, 1)))
    label = formatting.modality_label(analysis.modality)
    return Forest(
        title=f"{formatting.capitalize_first(label)} harmful prompts",
        rate=RATE_LABELS[analysis.metric],
        sentences=tuple(synthesis_sentences(analysis)),
        rows=tuple(_forest_row(estimate, limit) for estimate in analysis.estimates),
        summary=summary,
        ticks=ticks,
        numbers=_estimate_table(analysis),
        notes=(*arms_sentences(analysis), f"{formatting.capitalize_first(analysis.method)}.", *analysis.notes),
    )


def _forest_row(estimate: SynthesisEstimate, limit: float) -> ForestRow:
    return ForestRow(
        label=estimate.model,
        note=f"{estimate.study}, {formatting.count(estimate.runs, 'run')}, weight {100 * estimate.weight:.0f} %",
        difference=formatting.points(estimate.difference),
        interval=formatting.bracket(estimate.low, estimate.high) or "no interval",
        picture=difference_strip(estimate.difference, estimate.low, estimate.high, limit),
    )


def _estimate_table(analysis: SynthesisAnalysis) -> Table:
    rows: list[tuple[str | NumberCell, ...]] = []
    for estimate in analysis.estimates:
        *names, difference, runs, weight = estimate_cells(estimate)
        low, high = (None if end is None else 100 * end for end in (estimate.low, estimate.high))
        cells = (*names, formatting.join_items(estimate.arms))
        rows.append((*cells, NumberCell(difference, 100 * estimate.difference, low, high), runs, weight))
    caption = (
        f"Difference of the {RATE_LABELS[analysis.metric]}, {formatting.modality_label(analysis.modality)} prompts"
    )
    head = (*ESTIMATE_HEADINGS[:2], "Arms", *ESTIMATE_HEADINGS[2:])
    return Table(caption, head, tuple(rows), names=3)


def _origin_table(synthesis: Synthesis) -> Table:
    head = ("Study", "Models", "Judge", "steps", "result hash")
    rows = tuple(
        (
            study.name,
            formatting.join_items(study.models),
            study.judge,
            formatting.value_text(study.steps),
            study.result_hash[:12] if study.result_hash else formatting.MISSING,
        )
        for study in synthesis.studies
    )
    return Table("Where each came from", head, rows, names=len(head))
