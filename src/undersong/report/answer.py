"""The answer of a study in a few lines for a terminal: the verdict of the report's first screen, and its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from undersong.pages import formatting
from undersong.report.arm_comparisons import HeadlineData, headline_data, headline_data_by_model
from undersong.report.claims import change_phrase
from undersong.report.sections.cut_replies import cut_phrase, cut_sentence
from undersong.report.sections.headline import build_headline
from undersong.report.summary import Estimate
from undersong.results.schema import parse_results


def answer_lines(results: Mapping[str, Any]) -> list[str]:
    """Return the verdict, the base's rate, the worst arm's, the change, and a warning of replies that were cut.

    Several models have a line of numbers each.
    """
    parsed = parse_results(results)
    lines = ["".join(text for text, _ in build_headline(parsed).title)]
    if (headline := headline_data(parsed)) is not None:
        by_model = headline_data_by_model(parsed, headline.modality)
        lines += [f"{data.model}: {'; '.join(_numbers(data))}." for data in by_model]
        lines += [] if by_model else [f"{formatting.capitalize_first('; '.join(_numbers(headline)))}."]
        lines.append(_gloss(headline))
    lines += [cut] if (cut := cut_sentence(parsed)) else []
    return [line.replace(formatting.THIN_SPACE, " ").replace(formatting.NBSP, " ") for line in lines]


def _numbers(headline: HeadlineData) -> Iterator[str]:
    rate = headline.verdict_filter.rate_label
    if headline.base is not None:
        yield f"{rate} of the base {_estimate_text(headline.base)}"
    if headline.worst is None:
        return
    arm = "the arm" if headline.n_arms == 1 else "each arm, such as the first" if headline.tied else "the worst arm"
    yield f"of {arm} ({headline.worst.arm.label}) {_estimate_text(headline.worst.estimate)}"
    comparison = headline.comparison_to_base(headline.worst)
    if comparison is not None and comparison.difference is not None:
        yield change_phrase(comparison)
    elif headline.base is not None:
        difference = formatting.points(headline.worst.estimate.mean - headline.base.mean)
        yield f"a change of {difference} points"


def _estimate_text(estimate: Estimate) -> str:
    runs = "" if estimate.runs == 1 else f"{formatting.count(estimate.runs, 'run')} of "
    size = ", ".join(filter(None, (f"{runs}{formatting.count(estimate.n, 'prompt')}", cut_phrase(estimate))))
    interval = formatting.bracket(estimate.low, estimate.high) or "without an interval"
    return f"{formatting.percent(estimate.mean)} {interval} ({size})"


def _gloss(headline: HeadlineData) -> str:
    verdict_filter = headline.verdict_filter
    if verdict_filter.rate_label == "JSR":
        return (
            f"JSR: jailbreak success rate, the share of harmful prompts that the judge {verdict_filter.judge} calls "
            "answered."
        )
    return f"The judge {verdict_filter.judge} sees refusals and not harm; name one that sees harm for a JSR."
