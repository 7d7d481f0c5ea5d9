"""What was tested, what came out, and what to do, in three lines above the chart: for a reader of one screen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from undersong.pages import formatting
from undersong.report.arm_comparisons import HeadlineData
from undersong.report.claims import (
    WEAKER_REFUSALS,
    change_phrase,
    is_raised_in_no_arm,
    is_unchanged,
    margin_fall_phrase,
    model_sentence,
    run_sentence,
)
from undersong.report.sections.advice import AdviceItem

MAX_ACTIONS = 2


def first_screen_lines(
    headline: HeadlineData, by_model: Sequence[HeadlineData], advice: Sequence[AdviceItem]
) -> Iterator[tuple[str, str]]:
    """Yield (term, text): what was tested, the result of the worst arm with its risk, and what to do.

    Args:
        headline: The prompts of the page's first modality.
        by_model: The same for each of several models; empty for one model.
        advice: The recommended actions, most important first.
    """
    yield "Tested", tested_sentence(headline, by_model)
    if not by_model:
        result = " ".join(filter(None, (_result_sentence(headline), weaker_refusals_sentence(headline))))
        if result:
            yield "Result", result
    for data in by_model:
        if sentence := weaker_refusals_sentence(data):
            yield f"Refusal margin of {data.model}", sentence
    if advice:
        yield "What to do", " ".join(item.what for item in advice[:MAX_ACTIONS])


def tested_sentence(headline: HeadlineData, by_model: Sequence[HeadlineData]) -> str:
    """Prompts, judge, arms and runs."""
    measured = headline.base or (headline.worst.estimate if headline.worst else None)
    prompts = f"{formatting.modality_label(headline.modality)} harmful requests"
    size = prompts if measured is None else f"{measured.n:,} {prompts}"
    models = formatting.count(len(by_model), "model") if by_model else headline.model
    arms = formatting.count(headline.n_arms, "arm")
    runs = sorted({item.estimate.runs for item in headline.measurements})
    trained = f" before fine-tuning, and in {arms} of {_range(runs)} after it" if runs else ", without fine-tuning"
    return f"{size}, by the judge {headline.verdict_filter.judge}: {models}{trained}."


def _range(runs: Sequence[int]) -> str:
    return formatting.count(runs[0], "run") if len(runs) == 1 else f"{runs[0]} to {formatting.count(runs[-1], 'run')}"


def _result_sentence(headline: HeadlineData) -> str:
    """The change in the worst arm: of these models first, which is what the requests show, then of the training."""
    worst = headline.worst
    comparison = None if worst is None else headline.comparison_to_base(worst)
    if worst is None or comparison is None:
        return ""
    of_models = model_sentence(headline.model_evidence(worst)) if worst.estimate.runs > 1 else ""
    change = f"{'In the worst arm, ' if headline.n_arms > 1 else ''}{change_phrase(comparison)}."
    return " ".join(filter(None, (formatting.capitalize_first(change), of_models, run_sentence(comparison))))


def weaker_refusals_sentence(headline: HeadlineData) -> str:
    """Say that the refusal margin fell although no arm was shown to raise the rate; empty if that is not so."""
    if not is_raised_in_no_arm(headline) or not (fall := margin_fall_phrase(headline)):
        return ""
    rate = headline.verdict_filter.rate_label
    opening = f"We found no significant change of the {rate}, but {fall}" if is_unchanged(headline) else fall
    return f"{formatting.capitalize_first(opening)}: {WEAKER_REFUSALS}."
