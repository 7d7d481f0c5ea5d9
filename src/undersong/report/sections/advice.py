"""Recommended next steps for the reader, each backed by an interval or marked as lacking one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from undersong.pages import formatting
from undersong.report.arm_comparisons import ArmMeasurement, HeadlineData, headline_data, headline_data_by_model
from undersong.report.summary import Estimate, relation
from undersong.research.report import defenses
from undersong.results.schema import Results

MIN_RUNS = 5  # runs an arm, below which a contrast is not called shown


@dataclass(frozen=True, slots=True)
class AdviceItem:
    """Recommended action, its reason, and the section of the page that shows it (empty for none)."""

    what: str
    why: str
    section: str


def build_advice(results: Results) -> tuple[AdviceItem, ...]:
    """Return the recommended actions, most important first; empty if no harmful prompt was evaluated."""
    headline = headline_data(results)
    if headline is None:
        return ()
    if headline.worst is None:
        return (
            AdviceItem("Train something.", "Only the base was evaluated, so nothing is known of fine-tuning.", "runs"),
        )
    return tuple(_advice_items(results, headline, headline.worst))


def _advice_items(results: Results, headline: HeadlineData, worst: ArmMeasurement) -> Iterator[AdviceItem]:
    arms_above_base = [item for item in headline.measurements if headline.relation_to_base(item) == "higher"]
    by_model = headline_data_by_model(results, headline.modality)
    if by_model:
        yield from _advice_by_model(by_model)
    else:
        yield _unsafe_advice(headline, worst, arms_above_base) if arms_above_base else _no_harm_advice(headline, worst)
    if arms_above_base:
        yield from _recommendation_advice(results)
        is_defended = any(recommendation.defense for recommendation in results.recommendations)
        if worst in arms_above_base and not is_defended and not by_model:
            yield from _tried_defense_advice(headline, worst, shown_safe=not results.recommendations)
    if any(screen.closest for screen in results.screening):
        action = "Look at what lies closest before you train on it."
        yield AdviceItem(
            action, "The benign samples nearest to harm stand beside the harmful item they resemble.", "samples"
        )
    runs = worst.estimate.runs
    if runs < MIN_RUNS:
        reason = (
            f"{formatting.capitalize_first(formatting.count(runs, 'run'))} an arm cannot prove it; "
            "“undersong plan” says how many would."
        )
        yield AdviceItem("Train more seeds before you claim anything of the recipe.", reason, "comparisons")


def _advice_by_model(by_model: Sequence[HeadlineData]) -> Iterator[AdviceItem]:
    """Advise on each model by itself; if none has an arm above its base, on the one with the highest rate."""
    trained = [(data, data.worst) for data in by_model if data.worst is not None]
    unsafe = [
        (data, worst, above)
        for data, worst in trained
        if (above := [item for item in data.measurements if data.relation_to_base(item) == "higher"])
    ]
    for data, worst, above in unsafe:
        item = _unsafe_advice(data, worst, above)
        yield AdviceItem(f"{data.model}: {item.what[0].lower()}{item.what[1:]}", item.why, item.section)
    if trained and not unsafe:
        data, worst = max(trained, key=lambda pair: pair[1].estimate.mean)
        item = _no_harm_advice(data, worst)
        yield AdviceItem(item.what, f"{data.model}: {item.why}", item.section)


def _unsafe_advice(
    headline: HeadlineData, worst: ArmMeasurement, arms_above_base: Sequence[ArmMeasurement]
) -> AdviceItem:
    """Advise on the arms above the base; the arm with the highest mean may be too uncertain to be one of them."""
    highest = max(arms_above_base, key=lambda item: item.estimate.mean)
    arm_phrase = "the worst arm" if highest is worst else "an arm that is above the base"
    base_text = f"; the base’s is {_estimate_text(headline.base)}" if headline.base is not None else ""
    count_text = (
        f" {formatting.count(len(arms_above_base), 'arm')} of {headline.n_arms} are above it."
        if len(arms_above_base) > 1
        else ""
    )
    reason = (
        f"{formatting.capitalize_first(highest.arm.label)}: its {headline.verdict_filter.rate_label} is "
        f"{_estimate_text(highest.estimate)}{base_text}.{count_text}"
    )
    return AdviceItem(f"Do not ship {arm_phrase} as it is.", reason, "jsr_by_step")


def _no_harm_advice(headline: HeadlineData, worst: ArmMeasurement) -> AdviceItem:
    rate, estimate_text, state = (
        headline.verdict_filter.rate_label,
        _estimate_text(worst.estimate),
        headline.relation_to_base(worst),
    )
    if state == "unknown":
        reason = f"The highest {rate} is {estimate_text}, and without intervals nothing is judged."
        return AdviceItem("Measure again, with more runs.", reason, "runs")
    action = "Do not read this as proof of safety."
    if state == "lower":
        return AdviceItem(
            action, f"The highest {rate} is {estimate_text}, below the base’s, on these prompts only.", ""
        )
    high = worst.estimate.high
    bound = f": up to {formatting.percent(high)} fits the runs" if high is not None else ""
    return AdviceItem(
        action, f"No arm is significantly above the base, but the highest {rate} is {estimate_text}{bound}.", ""
    )


def _recommendation_advice(results: Results) -> Iterator[AdviceItem]:
    """Return the recommendations by the study's own rule; arms with the same recommendation are combined."""
    arms: dict[tuple[str, str], list[str]] = {}
    for recommendation in results.recommendations:
        arms.setdefault((recommendation.defense or "", recommendation.reason), []).append(
            defenses.recommendation_arm(recommendation, results).lower()
        )
    for (defense, reason), arm_names in arms.items():
        action = f"Use the defense “{defense}”" if defense else "Rely on no defense alone"
        yield AdviceItem(f"{action} for the model {formatting.join_items(arm_names, 'or')}.", reason, "defenses")


def _tried_defense_advice(headline: HeadlineData, worst: ArmMeasurement, shown_safe: bool) -> Iterator[AdviceItem]:
    """Advise on defenses of the worst arm that have a lower rate.

    Args:
        headline: The headline's measurements.
        worst: The worst arm.
        shown_safe: False if the study's own rule recommends none of its defenses.
    """
    tried = False
    distant, system = ("Train on distant data instead", "Ask under the system text “{}”")
    if not shown_safe:
        distant, system = (
            "Prefer distant data, which lowers the rate but is not shown to be safe",
            "Prefer the system text “{}”, which lowers the rate but is not shown to be safe",
        )
    for item in headline.counterparts:
        if item.arm.kind == "distant":
            tried = True
            if relation(item.estimate, worst.estimate, headline.comparison_to(item, worst)) == "lower":
                yield AdviceItem(f"{distant}.", _defense_effect(headline, item), "jsr_by_distance")
    for item in headline.system_variants:
        tried = True
        if relation(item.estimate, worst.estimate, headline.comparison_to(item, worst)) == "lower":
            yield AdviceItem(f"{system.format(item.system)}.", _defense_effect(headline, item), "defenses")
    if not tried:
        yield AdviceItem("Try a defense.", "Neither distant data nor a system text was tried on this arm.", "defenses")


def _defense_effect(headline: HeadlineData, item: ArmMeasurement) -> str:
    text = f"The {headline.verdict_filter.rate_label} is then {_estimate_text(item.estimate)}"
    if headline.base is None:
        return f"{text}."
    ending = {
        "same": ", not shown to differ from the base’s",
        "higher": ", still higher than the base’s",
        "lower": ", lower than the base’s",
        "unknown": "",
    }
    comparison = ending[headline.relation_to_base(item)]
    return f"{text}{comparison}; what it costs stands under “Defenses: safety against cost”."


def _estimate_text(estimate: Estimate) -> str:
    interval = formatting.bracket(estimate.low, estimate.high) or "without an interval"
    runs = "" if estimate.runs == 1 else f"{formatting.count(estimate.runs, 'run')} of "
    return f"{formatting.percent(estimate.mean)} {interval} ({runs}{formatting.count(estimate.n, 'prompt')})"
