"""Tables of statistical comparisons: arm comparisons, run noise, variance components and judge agreement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from undersong.pages import formatting
from undersong.pages.svg import difference_strip, symmetric_limit
from undersong.pages.tables import Table, training_label
from undersong.research.report.registration import question_status_text
from undersong.results.schema import Results
from undersong.results.schema_comparisons import ComparisonRecord, MixedModelRecord
from undersong.results.schema_outcomes import JudgeAgreement, RunNoiseRecord, VarianceComponentRecord, VarianceRecord
from undersong.results.schema_registration import RegistrationRecord
from undersong.settings.judge_names import RATE_LABELS


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """One comparison as text: rates in percent (means over its pairs of runs), difference and interval in points."""

    question: str
    scope: str
    what: str
    a: str
    b: str
    a_rate: str
    b_rate: str
    n: str
    difference: str
    minus: str  # 'B − A' or 'A − B'
    interval: str
    picture: Markup
    p: str
    p_adjusted: str
    method: str
    note: str


@dataclass(frozen=True, slots=True)
class ComparisonTable:
    """All comparisons in the order of the results. `tested` counts those with a corrected p value."""

    lines: tuple[ComparisonRow, ...]
    reach: str  # how far the pictures' axis goes to both sides, in points
    passed: int  # comparisons whose corrected p is below 0.05
    tested: int


def build_comparison_table(results: Results) -> ComparisonTable | None:
    """Build the table of arm comparisons; None if there are no comparisons."""
    if not results.comparisons:
        return None
    limit = symmetric_limit(
        end for comparison in results.comparisons for end in (comparison.difference, comparison.low, comparison.high)
    )
    registration = results.provenance.registration if results.provenance is not None else None
    adjusted = [comparison.p_adjusted for comparison in results.comparisons if comparison.p_adjusted is not None]
    return ComparisonTable(
        lines=tuple(_comparison_row(comparison, limit, registration) for comparison in results.comparisons),
        reach=f"{100 * limit:g}",
        passed=sum(1 for p in adjusted if p < 0.05),
        tested=len(adjusted),
    )


def _comparison_row(
    comparison: ComparisonRecord, limit: float, registration: RegistrationRecord | None
) -> ComparisonRow:
    status = question_status_text(registration, comparison.id)
    return ComparisonRow(
        question=comparison.question,
        scope=f"{comparison.scope}, {comparison.family}" if comparison.scope == "recipe" else comparison.scope,
        what=" · ".join(
            filter(None, (*comparison_facts(comparison), f"step {comparison.step}", comparison.model, status))
        ),
        a=comparison.a.label,
        b=comparison.b.label,
        a_rate=_mean_rate([pair.a for pair in comparison.estimates]),
        b_rate=_mean_rate([pair.b for pair in comparison.estimates]),
        n=str(comparison.n),
        difference=formatting.points(comparison.difference),
        minus="B − A" if comparison.minuend == "b" else "A − B",
        interval=formatting.bracket(comparison.low, comparison.high) or formatting.MISSING,
        picture=difference_strip(comparison.difference, comparison.low, comparison.high, limit),
        p=formatting.p_value(comparison.p),
        p_adjusted=formatting.p_value(comparison.p_adjusted),
        method=comparison.method or "",
        note=" ".join(filter(None, (comparison.note or _mcnemar_note(comparison), _mixed_model_note(comparison)))),
    )


def comparison_facts(comparison: ComparisonRecord) -> tuple[str, ...]:
    """Set, modality, system prompts and metric, in words."""
    systems = dict.fromkeys((comparison.a.system, comparison.b.system))
    return (
        comparison.prompt_set,
        formatting.modality_label(comparison.modality),
        f"“{' / '.join(systems)}” prompt",
        RATE_LABELS[comparison.metric],
    )


def _mcnemar_note(comparison: ComparisonRecord) -> str:
    if comparison.discordant is None:
        return ""
    return f"exact McNemar over prompts, unclustered: p = {comparison.discordant.mcnemar_p:.3g}"


def _mixed_model_note(comparison: ComparisonRecord) -> str:
    return "" if comparison.mixed_model is None else mixed_model_sentence(comparison.mixed_model)


def mixed_model_sentence(model: MixedModelRecord, unit: Literal["points", "nats"] = "points") -> str:
    """Describe a mixed model: its mean and interval, the spread of each level, and its notes.

    Args:
        model: The model.
        unit: Points of a rate, or nats of a refusal margin.
    """
    if model.difference is None:
        return model.note or ""
    decimals, scale = (1, 100) if unit == "points" else (2, 1)
    spreads = [f"{part.name} {scale * part.sd:.{decimals}f}" for part in model.effects]
    if unit == "points":
        estimate = f"{formatting.points(model.difference)} {formatting.bracket(model.low, model.high)}"
    else:
        low, high = (formatting.decimal(end, decimals) for end in (model.low, model.high))
        estimate = f"{formatting.decimal(model.difference, decimals)} [{low},{formatting.NBSP}{high}]"
    prompts = [part.groups for part in model.effects if part.name == "prompt"]
    subject = formatting.count(model.runs, "run")
    scope = ""
    if prompts:
        subject += f" and {formatting.count(prompts[0], 'cluster')} of prompts"
        scope = "Its interval is about further prompts, too."
    facts = f"Mixed model of {subject}: {estimate}, standard deviations {', '.join(spreads)} {unit}."
    return " ".join(filter(None, (facts, scope, model.note)))


def _mean_rate(values: list[float]) -> str:
    return formatting.percent(sum(values) / len(values)) if values else ""


RUN_NOISE_HEADINGS = (
    "Base",
    "trained",
    "prompts",
    "runs in groups",
    "SD of one run, points",
    "95 % of pairs differ by less than",
)


def build_run_noise_table(results: Results) -> Table | None:
    """Build the table of noise between training seeds; None if the results contain none."""
    if not results.run_noise:
        return None
    rows = tuple(_run_noise_row(run_noise) for run_noise in results.run_noise)
    return Table("Run noise: same samples, other training seed", RUN_NOISE_HEADINGS, rows, 3)


def _run_noise_row(run_noise: RunNoiseRecord) -> tuple[str, ...]:
    prompt_label = f"{run_noise.prompt_set} · {formatting.modality_label(run_noise.modality)}"
    names = run_noise.model, training_label(run_noise.train_modality), prompt_label
    if run_noise.sd is None:
        return (*names, formatting.MISSING, run_noise.note or "not estimated", formatting.MISSING)
    spread = " ".join(
        filter(None, (formatting.percent_number(run_noise.sd), formatting.bracket(run_noise.low, run_noise.high)))
    )
    max_difference = (
        formatting.MISSING
        if run_noise.repeatability_limit is None
        else f"{formatting.percent_number(run_noise.repeatability_limit)} points"
    )
    return (*names, f"{run_noise.runs} in {run_noise.groups}", spread, max_difference)


VARIANCE_HEADINGS = (
    "Prompts, trained on",
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
    """Build the table of variance components; None if no component has a value, as with one run per arm."""
    if not any(
        component.sd is not None for variance in results.variance_components for component in variance.components
    ):
        return None
    rows = tuple(
        _variance_row(variance, component)
        for variance in results.variance_components
        for component in variance.components
    )
    return Table("Variance components over runs and prompts", VARIANCE_HEADINGS, rows, 3)


def variance_notes(results: Results) -> list[str]:
    """Return notes on how to read the variance table and on further findings about variance."""
    sentences = [VARIANCE_CAVEAT]
    for variance in results.variance_components:
        if variance.seed_sd_from_prompts is not None:
            sentences.append(
                f"{_variance_label(variance)}: {formatting.percent_number(variance.seed_sd_from_prompts)} points of "
                f"the seed’s SD are there because {formatting.count(variance.n, 'prompt')} are few; what else there is "
                "only more seeds average out."
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
    prompt_label = f"{variance.prompt_set} · {formatting.modality_label(variance.modality)}"
    return f"{prompt_label}, {training_label(variance.train_modality).lower()}"


AGREEMENT_HEADINGS = (
    *("Judges", "set", "counted", "n", "both", "first only", "second only", "neither", "no verdict"),
    "kappa [interval]",
)


def build_judge_agreement(results: Results) -> Table | None:
    """Build the table of agreement between judges; None if there was only one judge."""
    rows = tuple(_judge_agreement_row(agreement) for agreement in results.judge_agreement)
    return Table("Agreement of judges on the same replies", AGREEMENT_HEADINGS, rows, 3) if rows else None


def _judge_agreement_row(agreement: JudgeAgreement) -> tuple[str, ...]:
    counts = (
        f"{count:,}"
        for count in (
            agreement.n,
            agreement.both,
            agreement.only_judge,
            agreement.only_other,
            agreement.neither,
            agreement.n_lost,
        )
    )
    return _judge_names(agreement), agreement.prompt_set, agreement.counted_verdict, *counts, _kappa(agreement)


def _judge_names(agreement: JudgeAgreement) -> str:
    return f"{agreement.judge} / {agreement.other_judge}"


def _kappa(agreement: JudgeAgreement) -> str:
    if agreement.kappa is None or agreement.kappa.value is None:
        return "not defined"
    center, low, high = (
        formatting.decimal(number, 2) for number in (agreement.kappa.value, agreement.kappa.low, agreement.kappa.high)
    )
    return center if agreement.kappa.low is None else f"{center} [{low},{formatting.NBSP}{high}]"


def build_judge_disagreements(results: Results) -> Table | None:
    """Return the listed replies that two judges count differently; None if there are none."""
    rows = tuple(
        (
            disagreement.prompt_id,
            _judge_names(agreement),
            agreement.prompt_set,
            disagreement.arm,
            formatting.value_text(disagreement.seed),
            str(disagreement.step),
            formatting.modality_label(disagreement.modality),
            disagreement.system,
            disagreement.verdict,
            disagreement.other_verdict,
        )
        for agreement in results.judge_agreement
        for disagreement in agreement.disagreements
    )
    head = ("Prompt", "Judges", "set", "Arm", "seed", "step", "prompts", "system", "first judge", "second judge")
    return Table("Replies that two judges count differently", head, rows, len(head)) if rows else None
