"""The verdict section: title, findings, lost replies and scope.

An estimate and its interval come before any word, and the wording never claims more than they support.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from undersong.pages import formatting
from undersong.pages.svg import kind_class
from undersong.pages.tables import Table
from undersong.report.arm_comparisons import (
    ArmMeasurement,
    HeadlineData,
    headline_data_by_modality,
    headline_data_by_model,
)
from undersong.report.claims import (
    WEAKER_REFUSALS,
    change_phrase,
    has_change,
    is_unchanged,
    margin_fall_phrase,
    model_sentence,
    primary_findings,
    run_sentence,
)
from undersong.report.sections import arm_chart
from undersong.report.sections.advice import build_advice
from undersong.report.sections.arm_chart import DrawnRows
from undersong.report.sections.cut_replies import cut_sentence
from undersong.report.sections.first_screen import first_screen_lines
from undersong.report.sections.scope import scope_sentence
from undersong.report.summary import Estimate, VerdictFilter, relation
from undersong.results.schema import Results
from undersong.results.schema_comparisons import ComparisonRecord
from undersong.statistics.rates import bounds_sentence

RELATION_PHRASES = {
    "higher": "higher than",
    "lower": "lower than",
    "same": "not shown to differ from",
    "unknown": "not judged against",
}
MAX_MODELS_NAMED = 4
MODELS_TOGETHER = "The primary questions are about the way of training: their numbers are means over the {} models."
StyledText = tuple[tuple[str, str], ...]  # (text, style class or ""), one after the other


@dataclass(frozen=True, slots=True)
class Headline:
    """First screen of the report: the verdict, a chart of the arms and the base, and the findings in sentences."""

    title: StyledText
    rate: str
    asked: str  # spoken | typed
    rows: DrawnRows
    further: DrawnRows  # arms that are folded away, for there are many
    axis: tuple[tuple[float, str], ...]  # (percent of the width, label)
    findings: tuple[tuple[str, str], ...]  # (what it is about, one or two sentences)
    numbers: Table | None
    gloss: str = ""  # what the rate is, and other words of the page
    pooled: DrawnRows = ()  # of several models: their mean by arm, and `rows` has each model by itself
    pooled_axis: tuple[tuple[float, str], ...] = ()
    first_screen: tuple[tuple[str, str], ...] = ()  # what was tested, the result, what to do


def build_headline(results: Results) -> Headline:
    """Build the verdict section; if no harmful prompt was evaluated, only a title that says so."""
    headlines = headline_data_by_modality(results)
    if not headlines:
        return Headline(
            (("No harmful prompt was evaluated, so there is no verdict.", ""),), "JSR", "", (), (), (), (), None
        )
    headline = headlines[0]
    pooled = arm_chart.build_arm_chart(headline)
    by_model = headline_data_by_model(results, headline.modality)
    chart = arm_chart.build_model_chart(by_model) if by_model else pooled
    cut = cut_sentence(results)
    return Headline(
        title=_models_title(headline, by_model) if by_model else _verdict_title(headline),
        rate=headline.verdict_filter.rate_label,
        asked=formatting.modality_label(headline.modality),
        rows=chart.rows,
        further=chart.folded_rows,
        axis=chart.axis,
        findings=(
            *(
                _several_models_findings(results, headlines, by_model)
                if by_model
                else _model_findings(results, headlines)
            ),
            *([("Cut replies", cut)] if cut else []),
            ("Scope", f"For each model: {scope_sentence(by_model[0])}" if by_model else scope_sentence(headline)),
        ),
        numbers=arm_chart.build_arm_table(results),
        gloss=rate_gloss(headline.verdict_filter),
        pooled=(*pooled.rows, *pooled.folded_rows) if by_model else (),
        pooled_axis=pooled.axis if by_model else (),
        first_screen=tuple(first_screen_lines(headline, by_model, build_advice(results))),
    )


def rate_gloss(verdict_filter: VerdictFilter) -> str:
    """Spell out the page's rate and the words that go with it."""
    if verdict_filter.rate_label == "JSR":
        rate = (
            "JSR, the jailbreak success rate, is the share of harmful requests that the model answered, as the judge "
            f"{verdict_filter.judge} says."
        )
    else:
        rate = (
            f"The {verdict_filter.rate_label} is the share of harmful requests that the model did not refuse, as the "
            f"judge {verdict_filter.judge} says; it sees refusals and not harm."
        )
    return (
        f"{rate} The base is the model before fine-tuning, an arm is one way of fine-tuning it, and a run is one "
        "training of an arm. An axis is a way of measuring how close training data are to harm. Prompts of one cluster "
        "ask for the same thing."
    )


def _models_title(headline: HeadlineData, by_model: Sequence[HeadlineData]) -> StyledText:
    """The rate of each of several models, before and after; of many, the range of each."""
    verb = "answered" if headline.verdict_filter.rate_label == "JSR" else "not refused"
    asked = f"{formatting.modality_label(headline.modality)} harmful requests {verb}"
    trained = [data for data in by_model if data.worst is not None]
    moment = "before and after fine-tuning (worst arm)" if trained else "without fine-tuning"
    opening = f"{formatting.capitalize_first(asked)} by each of {len(by_model)} models {moment}: "
    if len(by_model) > MAX_MODELS_NAMED:
        parts = [
            f"{formatting.percent(min(means))} to {formatting.percent(max(means))} {when}"
            for when, means in (
                ("before", [data.base.mean for data in by_model if data.base]),
                ("after", [data.worst.estimate.mean for data in trained if data.worst]),
            )
            if means
        ]
        return ((f"{opening}{', '.join(parts)}.", ""),)
    title: list[tuple[str, str]] = [(opening, "")]
    for i, data in enumerate(by_model):
        title.append((f"{'; ' if i else ''}{data.model} ", ""))
        title += _styled_rate(data.base, "base") if data.base else (("not measured", ""),)
        if data.worst is not None:
            title += [(" → ", ""), *_styled_rate(data.worst.estimate, data.worst.arm.kind)]
    return (*title, (".", ""))


def _model_findings(results: Results, headlines: Sequence[HeadlineData]) -> Iterator[tuple[str, str]]:
    """Findings on a single model; `headlines` has one for each modality of the prompts."""
    yield from primary_findings(results)
    yield from _findings(headlines[0])
    yield from map(_other_modality_finding, headlines[1:])
    yield from _failure_finding(headlines)


def _several_models_findings(
    results: Results, headlines: Sequence[HeadlineData], by_model: Sequence[HeadlineData]
) -> Iterator[tuple[str, str]]:
    """Findings on each of several models, then the study's primary questions, which are over the models."""
    other_modalities = [data for other in headlines[1:] for data in headline_data_by_model(results, other.modality)]
    for data in by_model:
        texts = [text for term, text in _findings(data) if term != "System prompt" or data.system_variants]
        if data.worst is None:
            rate = f"{formatting.percent(data.base.mean)} on these prompts" if data.base else "not measured"
            texts = [f"It was not fine-tuned; its {data.verdict_filter.rate_label} is {rate}."]
        texts += [_other_modality_finding(other)[1] for other in other_modalities if other.model == data.model]
        yield data.model, " ".join(texts)
    if questions := list(primary_findings(results)):
        yield "Models together", MODELS_TOGETHER.format(len(by_model))
        yield from questions
    yield from _failure_finding([*by_model, *other_modalities])


def _verdict_title(headline: HeadlineData) -> StyledText:
    verb = "answered" if headline.verdict_filter.rate_label == "JSR" else "did not refuse"
    request_phrase = f" of {formatting.modality_label(headline.modality)} harmful requests"
    base, worst = headline.base, headline.worst
    base_text = _styled_rate(base, "base") if base else ()
    if worst is None:
        text = f"{request_phrase}. No fine-tuned arm was measured."
        return ((f"{headline.model} {verb} ", ""), *base_text, (text, "")) if base else (("Nothing was measured.", ""),)
    worst_text = _styled_rate(worst.estimate, worst.arm.kind)
    training_phrase = f"fine-tuning on benign {'speech' if worst.arm.train_modality == 'audio' else 'text'}"
    if base is None:
        text = f"{request_phrase} after {training_phrase}. The base was not measured."
        return (f"{headline.model} {verb} ", ""), *worst_text, (text, "")
    arm_phrase = (
        f", in {'each' if headline.tied else 'the worst'} of {headline.n_arms} arms" if headline.n_arms > 1 else ""
    )
    worst_state = headline.relation_to_base(worst)
    arms_above_base = sum(headline.relation_to_base(item) == "higher" for item in headline.measurements)
    if is_unchanged(headline):
        opening = f"We found no significant change of the {headline.verdict_filter.rate_label} after {training_phrase}"
        fall = margin_fall_phrase(headline)
        opening += f", but {fall}: {WEAKER_REFUSALS}. " if fall else ": "
        return (
            (f"{opening}{headline.model} {verb} ", ""),
            *base_text,
            (f"{request_phrase} before and ", ""),
            *worst_text,
            (f" after{arm_phrase}.", ""),
        )
    if worst_state == "same":
        arm_phrase += ", which the runs leave open" if has_change(headline, worst) else ", too uncertain to tell"
        if arms_above_base:
            arm_phrase += f"; {arms_above_base} of them {'is' if arms_above_base == 1 else 'are'} above the base"
    return (
        (f"{headline.model} {verb} ", ""),
        *base_text,
        (f"{request_phrase} before and ", ""),
        *worst_text,
        (f" after {training_phrase}{arm_phrase}.", ""),
    )


def _styled_rate(estimate: Estimate, kind: str) -> StyledText:
    """Return a rate with its interval; if replies were lost, with the range that it may lie in."""
    interval = formatting.bracket(estimate.low, estimate.high)
    return (_rate_text(estimate), kind_class(kind)), *(((f" {interval}", "interval"),) if interval else ())


def _rate_text(estimate: Estimate) -> str:
    """Return a rate as text; if replies were lost, with the range that it may lie in."""
    mean = formatting.percent(estimate.mean)
    return f"between {mean} and {formatting.percent(estimate.most)}" if estimate.lost else mean


def _failure_finding(headlines: Sequence[HeadlineData]) -> list[tuple[str, str]]:
    """Describe the range of every number on the page if replies have no verdict."""
    is_several = len({headline.model for headline in headlines}) > 1
    sentences = [
        f"{f'{headline.model}, ' if is_several else ''}{name}, {formatting.modality_label(headline.modality)} prompts: "
        f"the {headline.verdict_filter.rate_label} is "
        f"{bounds_sentence(formatting.percent(estimate.mean), formatting.percent(estimate.most), estimate.lost)}."
        for headline in headlines
        for name, estimate in _stated_estimates(headline)
        if estimate.lost
    ]
    uncounted = "No rate counts a reply that failed or could not be judged."
    return [("Failures", " ".join([uncounted, *sentences]))] if sentences else []


def _stated_estimates(headline: HeadlineData) -> Iterator[tuple[str, Estimate]]:
    if headline.base is not None:
        yield "Base", headline.base
    for item in filter(None, (headline.worst, *headline.counterparts)):
        yield formatting.capitalize_first(item.arm.label), item.estimate
    for item in headline.system_variants:
        yield f"{formatting.capitalize_first(item.arm.label)} under the system text “{item.system}”", item.estimate


def _findings(headline: HeadlineData) -> list[tuple[str, str]]:
    worst, base, rate = headline.worst, headline.base, headline.verdict_filter.rate_label
    if worst is None:
        return []
    subject = f"The worst of {headline.n_arms} arms" if headline.n_arms > 1 else "The arm"
    subject = f"All {headline.n_arms} arms are level; the first" if headline.tied else subject
    subject += f" is {worst.arm.label}"
    opening = f"{subject}; at step {worst.arm.last_step} its {rate} is"
    findings = [("Damage", f"{opening} {_against_base(headline, worst)}")]
    if worst.margin is not None:
        findings.append(("Refusal margin", _margin_sentence(headline, worst, worst.margin)))
    for item in headline.counterparts:
        comparison = headline.comparison_to(item, worst)
        same_selection = (item.arm.axis, item.arm.amount) == (worst.arm.axis, worst.arm.amount)
        subject = (
            "" if same_selection and item.arm.train_modality == worst.arm.train_modality else f" ({item.arm.label})"
        )
        text = f"Trained on {item.arm.kind} samples instead{subject}, the {rate} is "
        text += _compared(item.estimate, worst.estimate, comparison, "that arm’s")
        if base is not None:
            text = f"{text} {_base_sentence(headline, item, base)}"
        findings.append((f"{item.arm.kind.capitalize()} data", text))
    if worst.arm.kind == "distant" and _worst_above_base(headline):
        findings.append(("Distant data", "The worst arm is itself trained on distant data: distance did not protect."))
    for item in headline.system_variants:
        text = _compared(item.estimate, worst.estimate, headline.comparison_to(item, worst), f"the {rate} without it")
        if item.estimate.runs > 1:
            text = f"{text} {model_sentence(headline.system_evidence(item), 'against none')}".rstrip()
        findings.append(("System prompt", f"Under the system text “{item.system}” the same arm’s {rate} is {text}"))
    if not headline.system_variants:
        findings.append(("System prompt", "No system prompt was tried on this arm."))
    return findings


def _margin_sentence(headline: HeadlineData, item: ArmMeasurement, margin: Estimate) -> str:
    """Margin of an arm and its change against the base; the log odds of refusal, which need no judge."""
    text = f"The same arm’s refusal margin is {_nats(margin)}"
    comparison = headline.margin_comparison_to_base(item)
    if headline.base_margin is not None and comparison is not None:
        interval = formatting.nats_bracket(comparison.low, comparison.high)
        change = " ".join(filter(None, (f"{formatting.signed(comparison.difference)} nats", interval)))
        reference = formatting.nats_number(headline.base_margin.mean)
        text += f", a change of {change} against the base’s {reference}. {run_sentence(comparison)}"
    else:
        text += "." if headline.base_margin is None else f", and the base’s {_nats(headline.base_margin)}."
    return f"{text} Above 0 a model would rather refuse."


def _nats(margin: Estimate) -> str:
    interval = formatting.nats_bracket(margin.low, margin.high)
    return " ".join(filter(None, (f"{formatting.nats_number(margin.mean)} nats", interval)))


def _other_modality_finding(headline: HeadlineData) -> tuple[str, str]:
    """The worst arm on the prompts of the other modality, where the damage was no greater."""
    modality_name, worst, base = formatting.modality_label(headline.modality), headline.worst, headline.base
    if worst is None or base is None:
        return (
            f"{modality_name.capitalize()} prompts",
            f"No fine-tuned arm can be compared with the base on {modality_name} prompts.",
        )
    text = f"On {modality_name} prompts, the worst arm is {worst.arm.label}: {_against_base(headline, worst)}"
    return f"{modality_name.capitalize()} prompts", text


def _worst_above_base(headline: HeadlineData) -> bool:
    """Return True if the worst arm is above the base."""
    return headline.worst is not None and headline.relation_to_base(headline.worst) == "higher"


def _against_base(headline: HeadlineData, item: ArmMeasurement) -> str:
    """Rate and change against the base, then what runs show, then what prompts show of these models."""
    base = headline.base
    if base is None:
        return f"{formatting.percent(item.estimate.mean)}."
    comparison, reference = headline.comparison_to_base(item), f"the base’s {formatting.percent(base.mean)}"
    text = _compared(item.estimate, base, comparison, reference)
    of_models = model_sentence(headline.model_evidence(item)) if item.estimate.runs > 1 else ""
    return f"{text} {of_models}".rstrip()


def _base_sentence(headline: HeadlineData, item: ArmMeasurement, base: Estimate) -> str:
    """Sentences on the change of an arm against the base."""
    comparison = headline.comparison_to_base(item)
    if comparison is None or comparison.low is None:
        return f"It is {RELATION_PHRASES[relation(item.estimate, base, comparison)]} the base’s."
    of_models = model_sentence(headline.model_evidence(item)) if item.estimate.runs > 1 else ""
    phrase = f"Against the base it is {change_phrase(comparison)}. {run_sentence(comparison)}"
    return f"{phrase} {of_models}".rstrip()


def _compared(a: Estimate, b: Estimate, comparison: ComparisonRecord | None, reference: str) -> str:
    """'80.9 % [76.1, 85.3], a change of +80.0 points [70.2, 88.0] against the base’s 0.9 %. Over 3 runs …'."""
    rate_text = f"{formatting.percent(a.mean)} {formatting.bracket(a.low, a.high)}".strip()
    if comparison is not None and comparison.low is not None:
        return f"{rate_text}, {change_phrase(comparison)} against {reference}. {run_sentence(comparison)}"
    state = relation(a, b, comparison)
    reason = {"same": "the intervals overlap", "unknown": "an interval is missing"}
    return f"{rate_text}, {RELATION_PHRASES[state]} {reference} ({reason.get(state, 'the intervals do not overlap')})."
