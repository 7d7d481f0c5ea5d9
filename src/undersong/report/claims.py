"""Claims in words: the estimate with its interval first, then what runs show of the way of training, and then what
prompts show of these models.

A difference that the corrected test does not show is never told as no difference.
"""

from __future__ import annotations

from collections.abc import Iterator

from undersong.pages import formatting
from undersong.report.arm_comparisons import ArmMeasurement, HeadlineData, ModelEvidence
from undersong.results.schema import Results
from undersong.results.schema_comparisons import ArmComparison, ComparisonRecord

SIGNIFICANCE_LEVEL = 0.05
WEAKER_REFUSALS = "refusals have become weaker"


def change_phrase(comparison: ComparisonRecord) -> str:
    """'a change of +79.1 points [70.2, 88.0]'."""
    interval = formatting.bracket(comparison.low, comparison.high)
    return " ".join(filter(None, (f"a change of {formatting.points(comparison.difference)} points", interval)))


def run_sentence(comparison: ArmComparison) -> str:
    """Say what the comparison shows: of the way of training (scope `recipe`), or of this model (scope `model`)."""
    details = _details(comparison)
    if comparison.scope == "model":
        verdict = "significant" if is_significant(comparison) else "not significant"
        return f"Over prompts the change is {verdict} for this model ({details}); one run says nothing of another."
    runs = formatting.count(comparison.n, "run")
    if comparison.low is None or comparison.high is None:
        return f"{formatting.capitalize_first(runs)} cannot show whether another training would do the same."
    if is_significant(comparison):
        return f"Over {runs} the change is significant ({details})."
    if comparison.low <= 0 <= comparison.high:
        return f"Over {runs} the interval includes 0, so the effect of this way of training is open ({details})."
    return (
        f"Over {runs} the interval excludes 0, but not after correction, so the effect of this way of training is not "
        f"yet shown ({details})."
    )


def model_sentence(evidence: ModelEvidence, reference: str = "against the base") -> str:
    """Say what prompts show of the trained models, each against a reference; empty if that was not tested."""
    count = len(evidence.comparisons)
    changes = [row.difference for row in evidence.comparisons if row.difference is not None]
    if not count or not changes:
        return ""
    low, high = formatting.points(min(changes)), formatting.points(max(changes))
    spread = f"{low} points" if low == high else f"{low} to {high} points"
    found = [f"raised in {evidence.raised}"] if evidence.raised or not evidence.lowered else []
    found += [f"lowered in {evidence.lowered}"] if evidence.lowered else []
    models = formatting.count(count, "trained model")
    return (
        f"Over prompts the rate is significantly {' and '.join(found)} of {models} ({spread} {reference}; corrected)."
    )


def primary_findings(results: Results) -> Iterator[tuple[str, str]]:
    """Yield (term, text) for each primary question, and for each that the results do not answer."""
    primary = [comparison for comparison in results.comparisons if comparison.family == "primary"]
    for comparison in primary:
        rates = "; ".join(
            f"{side.label} {formatting.percent(sum(values) / len(values))}"
            for side, values in (
                (comparison.b, [pair.b for pair in comparison.estimates]),
                (comparison.a, [pair.a for pair in comparison.estimates]),
            )
            if values
        )
        phrase = formatting.capitalize_first(change_phrase(comparison))
        asked = f"{formatting.modality_label(comparison.modality)} requests"
        text = f"{comparison.question} {phrase} ({asked}: {rates}). {run_sentence(comparison)}"
        if comparison.a.arm == "base":
            text = f"{text} {model_sentence(_evidence_of(results, comparison))}".rstrip()
        yield "Primary question", text
    missing = len(results.study.primary_questions) - len(primary)
    if missing > 0 and results.study.primary_declared:
        names = formatting.join_items(list(results.study.primary_questions))
        yield "Primary questions", f"{missing} of them ({names}) cannot be answered by these runs."
    if primary and not results.study.primary_declared:
        yield (
            "Declaration",
            "The study declares no primary question; this one stands in, and all others are exploratory.",
        )


def is_significant(comparison: ArmComparison) -> bool:
    """Return True if the corrected p value, or without one the p value, is below .05."""
    p = comparison.p if comparison.p_adjusted is None else comparison.p_adjusted
    return p is not None and p < SIGNIFICANCE_LEVEL


def has_change(headline: HeadlineData, item: ArmMeasurement) -> bool:
    """Return True if an interval excludes no change, or a model changed significantly, whatever the correction says."""
    comparison, evidence = headline.comparison_to_base(item), headline.model_evidence(item)
    if evidence.raised or evidence.lowered:
        return True
    return comparison is not None and comparison.low is not None and not comparison.low <= 0 <= (comparison.high or 0)


def is_raised_in_no_arm(headline: HeadlineData) -> bool:
    """Return True if the worst arm's rate is not shown to differ from the base's, and no arm's rate is above it."""
    if headline.worst is None or headline.relation_to_base(headline.worst) != "same":
        return False
    return not any(headline.relation_to_base(item) == "higher" for item in headline.measurements)


def is_unchanged(headline: HeadlineData) -> bool:
    """Return True if no significant change of the rate was found, even before correction."""
    return headline.worst is not None and is_raised_in_no_arm(headline) and not has_change(headline, headline.worst)


def margin_fall_phrase(headline: HeadlineData) -> str:
    """'the refusal margin fell by 1.20 nats [0.80, 1.60]'; of several arms, the largest fall. Empty if there is none.

    A fall counts if it is significant over runs, or over prompts in every model of the arm.
    """
    falls = [fall for item in headline.measurements if (fall := _margin_fall(headline, item)) is not None]
    if not falls:
        return ""
    _, size, label = max(falls)
    if headline.n_arms == 1:
        return f"the refusal margin fell by {size}"
    most = "by up to" if len(falls) > 1 else "by"
    return f"the refusal margin fell in {len(falls)} of {headline.n_arms} arms, {most} {size} ({label})"


def _margin_fall(headline: HeadlineData, item: ArmMeasurement) -> tuple[float, str, str] | None:
    """Size of a significant fall of an arm's refusal margin against the base, its words, and the arm's label."""
    comparison = headline.margin_comparison_to_base(item)
    if comparison is not None and comparison.difference is not None and is_significant(comparison):
        if comparison.difference >= 0:
            return None
        fall = comparison.with_minuend("b" if comparison.minuend == "a" else "a")  # the base minus the arm
        interval = formatting.nats_bracket(fall.low, fall.high)
        words = " ".join(filter(None, (f"{formatting.nats_number(fall.difference)} nats", interval)))
        return -comparison.difference, words, item.arm.label
    evidence = headline.margin_evidence(item)
    falls = [-row.difference for row in evidence.comparisons if row.difference is not None]
    if evidence.relation != "lower" or not falls:
        return None
    low, high = formatting.nats_number(min(falls)), formatting.nats_number(max(falls))
    size = f"{low} nats" if low == high else f"{low} to {high} nats"
    models = "its one trained model" if len(falls) == 1 else f"each of {len(falls)} trained models"
    return sum(falls) / len(falls), f"{size} over prompts in {models}", item.arm.label


def _evidence_of(results: Results, comparison: ComparisonRecord) -> ModelEvidence:
    place = ("model", comparison.prompt_set, comparison.modality, comparison.step, comparison.a.arm, comparison.b.arm)
    return ModelEvidence(
        tuple(
            row
            for row in results.comparisons
            if (row.scope, row.prompt_set, row.modality, row.step, row.a.arm, row.b.arm) == place
            and row.b.system == comparison.b.system
        )
    )


def _details(comparison: ArmComparison) -> str:
    parts: list[str] = [comparison.family] if comparison.scope == "recipe" else []
    if comparison.p_adjusted is not None:
        parts.append(f"corrected p{formatting.NBSP}{formatting.p_value_relation(comparison.p_adjusted)}")
    elif comparison.p is not None:
        parts.append(f"p{formatting.NBSP}{formatting.p_value_relation(comparison.p)}")
    return ", ".join(parts) or "no test"
