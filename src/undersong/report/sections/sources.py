"""Where the spread of runs comes from: base, selection, draw, seed, prompts."""

from __future__ import annotations

from undersong.report import formatting
from undersong.report.tables import Table, training_label
from undersong.results.schema import Results
from undersong.results.schema_outcomes import VarianceComponentRecord, VarianceRecord

VARIANCE_HEADINGS = (
    "Asked, trained",
    "source",
    "why no number, or 0",
    "values",
    "SD, points",
    "share of what is known",
)
VARIANCE_CAVEAT = (
    "Bases, selections, draws and seeds are as many as this study has. Run noise grows with the rate: a study whose "
    "arms hardly break promises more power than one whose arms do has."
)


def build_variance_table(results: Results) -> Table | None:
    """None where no source has a number, as in a study of one run an arm."""
    if not any(component.sd is not None for variance in results.variance for component in variance.parts):
        return None
    rows = tuple(_variance_row(variance, component) for variance in results.variance for component in variance.parts)
    return Table("Where the spread of rates comes from, runs and prompts of this study", VARIANCE_HEADINGS, rows, 3)


def variance_notes(results: Results) -> list[str]:
    """How the table is read, and what else was found."""
    sentences = [VARIANCE_CAVEAT]
    for variance in results.variance:
        if variance.seed_by_prompts is not None:
            sentences.append(
                f"{_variance_label(variance)}: {formatting.percent_number(variance.seed_by_prompts)} points of the seed’s SD are there because "
                f"{formatting.count(variance.n, 'prompt')} are few; what else there is only more seeds average out."
            )
        if variance.note:
            sentences.append(f"{_variance_label(variance)}: {variance.note}")
    return sentences


def _variance_row(variance: VarianceRecord, component: VarianceComponentRecord) -> tuple[str, ...]:
    spread = formatting.MISSING
    if component.sd is not None:
        spread = " ".join(
            filter(None, (formatting.percent_number(component.sd), formatting.bracket(component.low, component.high)))
        )
    values = str(component.groups) if component.groups else formatting.MISSING
    return (
        _variance_label(variance),
        component.name,
        component.note or "",
        values,
        spread,
        formatting.percent(component.share),
    )


def _variance_label(variance: VarianceRecord) -> str:
    prompt_label = " · ".join(
        filter(None, (variance.set, formatting.modality_label(variance.modality) if variance.modality else ""))
    )
    return f"{prompt_label}, {training_label(variance.train_modality).lower()}"
