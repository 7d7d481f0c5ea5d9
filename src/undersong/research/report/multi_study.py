"""The HTML page that compares several studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.pages import formatting
from undersong.pages.layout import encode_html, render_layout
from undersong.pages.tables import Table
from undersong.report.sections import endpoints
from undersong.research.report import study_comparison
from undersong.research.report.study_comparison import StudyComparison, compare_studies
from undersong.results.schema import model_names, parse_results
from undersong.store.atomic import write_atomic

CONTENTS = (
    ("studies", "Studies compared"),
    ("questions", "The same questions"),
    ("defense_costs", "Defenses: safety against cost"),
    ("origin", "How they were made"),
)


def render_multi_study_html(studies: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """Render the comparison of several studies as one HTML document.

    `studies` holds pairs of path and content of a results.json. Raises UndersongError for another schema version or
    invalid content; the message names the study.
    """
    comparisons = compare_studies([(label, parse_results(results, label)) for label, results in studies])
    return render_layout(
        "multi_study/",
        title=formatting.join_items([study.name for study in comparisons]),
        models=(),
        contents=CONTENTS,
        studies=comparisons,
        told=_worst_arm_summary(comparisons),
        apart=[study for study in comparisons if study.differs],
        rates=study_comparison.build_study_rates(comparisons),
        shared=study_comparison.build_shared_comparisons(comparisons),
        margins=endpoints.build_shared_margins([(study.name, study.results) for study in comparisons]),
        defense_costs=study_comparison.build_defense_costs(comparisons),
        made=_origin_table(comparisons),
    )


def write_multi_study_report(studies: Sequence[tuple[str, Mapping[str, Any]]], path: str | Path) -> None:
    """Render the comparison of studies and write it to a file, completely or not at all."""
    write_atomic(path, encode_html(render_multi_study_html(studies)))


def _worst_arm_summary(studies: Sequence[StudyComparison]) -> str:
    """Return the number of studies whose worst arm is above its base, as text; empty if no study has both.

    Where a study has several models, models are counted and not studies.
    """
    headlines = [
        headline
        for study in studies
        if study.headlines
        for headline in study.headlines_by_model(study.headlines[0].modality)
    ]
    states = [
        headline.relation_to_base(headline.worst)
        for headline in headlines
        if headline.worst is not None and headline.base is not None
    ]
    state_phrases = (
        ("higher", "above the base"),
        ("same", "not shown to differ from the base"),
        ("lower", "below the base"),
    )
    parts = [f"in {states.count(state)} {phrase}" for state, phrase in state_phrases if state in states]
    if not parts:
        return ""
    counted = formatting.count(len(states), "study", "studies")
    if any(len(model_names(study.results)) > 1 for study in studies):
        counted = f"{formatting.count(len(states), 'model')} in {formatting.count(len(studies), 'study', 'studies')}"
    return f"The worst arm is {formatting.join_items(parts)}, of {counted}."


def _origin_table(studies: Sequence[StudyComparison]) -> Table:
    head = ("Study", "Models", "Protocol", "Judge", "seeds", "steps", "arms", "created", "result hash")
    rows = tuple(
        (
            study.name,
            formatting.join_items(model_names(study.results)),
            study.results.study.protocol,
            study.results.study.judge,
            formatting.value_text(study.results.study.seeds),
            formatting.value_text(study.results.study.steps),
            str(len({run.arm for run in study.results.runs if run.kind != "base"})),
            made.created if made else formatting.MISSING,
            made.result_hash[:12] if made else formatting.MISSING,
        )
        for study in studies
        for made in (study.results.provenance,)
    )
    return Table("Where each came from", head, rows, names=len(head))
