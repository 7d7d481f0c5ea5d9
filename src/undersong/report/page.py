"""The HTML report page: builds every section from the parsed results and renders the templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.evaluation.corrected_rates import CorrectedSetRate
from undersong.pages.audio_players import embed_players
from undersong.pages.layout import encode_html, render_layout
from undersong.report.sections import (
    advice,
    comparisons,
    comprehension,
    corrected,
    endpoints,
    headline,
    jsr_by_distance,
    jsr_by_step,
    modality,
    model_comparison,
    provenance,
    replies,
    runs,
    samples,
    screening,
    selections,
)
from undersong.report.summary import rate_name
from undersong.research.report import defenses, refusal_gap
from undersong.results.schema import model_names, parse_results
from undersong.store.atomic import write_atomic

CONTENTS = (
    ("verdict", "Summary"),
    ("replies", "Requests and replies"),
    ("jsr_by_step", "JSR by training step"),
    ("jsr_by_distance", "JSR by distance to harm"),
    ("modality", "Audio vs. text"),
    ("models", "Model comparison"),
    ("defenses", "Defenses: safety against cost"),
    ("refusal_gap", "Refusal mechanism by layer"),
    ("screening", "Screening"),
    ("samples", "Samples"),
    ("comparisons", "Comparisons"),
    ("runs", "All runs"),
    ("provenance", "Provenance"),
)


def render_html(
    results: Mapping[str, Any],
    audio: Mapping[str, tuple[bytes, str]] = {},
    show_replies: bool = False,
    corrected_rates: Sequence[tuple[str, CorrectedSetRate]] = (),
) -> str:
    """Render the report on `results` (the content of a results.json) as one HTML document; output is deterministic.

    Args:
        results: Content of results.json.
        audio: Encoded audio and media type by sample id, embedded next to the samples that the page names.
        show_replies: True to show replies to harmful prompts, if the results hold them; else they are redacted.
        corrected_rates: Rates corrected by labels, each with the name of its run.

    Raises UndersongError for another schema version, invalid content, or a media type that is not audio.
    """
    parsed = parse_results(results)
    models_section, screening_section = (
        model_comparison.build_model_comparison(parsed),
        screening.build_screening(parsed),
    )
    omitted = {
        name
        for name, section_content in (("models", models_section), ("screening", screening_section))
        if not section_content
    }
    embedded = embed_players(parsed.screening, audio, [example.prompt_id for example in parsed.examples])
    contents = [entry for entry in CONTENTS if entry[0] not in omitted]
    return render_layout(
        "",
        title=parsed.study.name,
        study=parsed.study,
        models=model_names(parsed),
        contents=contents,
        titles=dict(contents),
        headline=headline.build_headline(parsed),
        advice=advice.build_advice(parsed),
        jsr_by_step=jsr_by_step.build_jsr_by_step(parsed),
        jsr_by_distance=jsr_by_distance.build_jsr_by_distance(parsed),
        modality=modality.build_modality_comparison(parsed),
        model_comparison=models_section,
        defenses=defenses.build_defense_table(parsed),
        refusal_gap=refusal_gap.build_refusal_gap(parsed),
        screening=screening_section,
        samples=samples.build_samples(parsed, embedded),
        selections=selections.build_selections(parsed),
        comparisons=comparisons.build_comparison_table(parsed),
        rate_name=rate_name(parsed),
        margin_comparisons=endpoints.build_margin_comparisons(parsed),
        doses=endpoints.build_dose_table(parsed),
        dose_comparisons=endpoints.build_dose_comparisons(parsed),
        corrected=corrected.build_corrected_table(corrected_rates),
        noise=comparisons.build_run_noise_table(parsed),
        variance=comparisons.build_variance_table(parsed),
        variance_notes=comparisons.variance_notes(parsed),
        judge_agreement=comparisons.build_judge_agreement(parsed),
        judge_disagreements=comparisons.build_judge_disagreements(parsed),
        comprehension=comprehension.build_comprehension_table(parsed),
        proximity=jsr_by_distance.build_proximity_table(parsed),
        proximity_notes=jsr_by_distance.proximity_notes(parsed),
        replies=replies.build_reply_examples(parsed, show_replies, embedded.by_id),
        runs=runs.build_run_details(parsed),
        provenance=provenance.build_provenance(parsed),
    )


def write_report(
    results: Mapping[str, Any],
    path: str | Path,
    audio: Mapping[str, tuple[bytes, str]] = {},
    show_replies: bool = False,
    corrected_rates: Sequence[tuple[str, CorrectedSetRate]] = (),
) -> None:
    """Render the report and write it to a file, completely or not at all; with replies, its owner alone can read it.

    Args:
        results: Content of results.json.
        path: HTML file to write.
        audio: Encoded audio and media type (such as audio/ogg) by sample id.
        show_replies: True to show replies to harmful prompts.
        corrected_rates: Rates corrected by labels, each with the name of its run.
    """
    page = encode_html(render_html(results, audio, show_replies, corrected_rates))
    write_atomic(path, page, 0o600 if show_replies else 0o644)
