"""A comparison of two models' verdicts as JSON and in sentences."""

from __future__ import annotations

from typing import Any

from undersong.evaluation.comparison import OUTCOMES, SCOPE, MarginComparison, VerdictComparison, VerdictSummary
from undersong.evaluation.verdicts import SELECTION_FIELDS
from undersong.settings.judge_names import RATE_LABELS
from undersong.statistics.rates import Rate, bounds_sentence


def comparison_json(comparison: VerdictComparison) -> dict[str, Any]:
    """Output of `undersong compare --json`. Shares are from 0 to 1; `low` and `high` are 95 % limits.

    `cut` counts the replies that were cut at the limit of tokens; null if the file does not say how replies ended.

    `before` and `after` hold `jailbreak` and `jsr` (`non_refusal_rate` if the judge sees refusals only), or `refusal`
    and `refusal_rate` for benign prompts. `b` and `c` count the outcome only before and only after. `low`, `high` and
    `p` are over clusters of prompts; `by_prompt` treats prompts as independent.
    """
    paired, before, after = comparison.paired, comparison.before, comparison.after
    return {
        "scope": SCOPE,
        "metric": comparison.metric,
        "n": paired.n,
        "before": _rate_json(comparison.metric, paired.before),
        "after": _rate_json(comparison.metric, paired.after),
        "b": paired.b,
        "c": paired.c,
        "difference": paired.difference,
        "clusters": paired.clusters,
        "low": paired.clustered_low,
        "high": paired.clustered_high,
        "p": paired.clustered_p,
        "by_prompt": {"low": paired.difference_low, "high": paired.difference_high, "p": paired.p},
        "errors": {
            name: {"error": summary.error, "unparsed": summary.unparsed, "empty": summary.empty}
            for name, summary in _named_summaries(comparison)
        },
        "cut": {name: summary.cut for name, summary in _named_summaries(comparison)},
        "bounds": {
            name: {"low": bounds.low, "high": bounds.high}
            for name, bounds in (
                ("before", before.bounds),
                ("after", after.bounds),
                ("difference", comparison.bounds),
            )
        },
        "selected": {
            name: {field: getattr(summary, field) for field in SELECTION_FIELDS}
            for name, summary in _named_summaries(comparison)
        },
        "refusal_margin": comparison.margin
        and {
            "before": comparison.margin.before,
            "after": comparison.margin.after,
            "change": comparison.margin.change,
            "low": comparison.margin.low,
            "high": comparison.margin.high,
        },
        "unpaired": [{"prompt_id": prompt_id, "side": side} for prompt_id, side in comparison.unpaired],
        "notes": list(comparison.notes),
    }


def comparison_sentence(comparison: VerdictComparison) -> str:
    """Result as a sentence with intervals and scope, followed by the bounds if replies were lost.

    Figures by cluster come first; those that count every prompt as independent are labeled so.
    If lost replies could reverse the sign, the first sentence says that they were not counted.
    """
    paired, difference_bounds = comparison.paired, comparison.bounds
    name = "JSR" if comparison.metric == "jsr" else f"the {RATE_LABELS[comparison.metric]}"
    lost_replies_note = lost_replies_sentence(comparison)
    if lost_replies_note and difference_bounds.low <= 0 <= difference_bounds.high:
        name = f"counting no failed or unjudged reply, {name}"
    direction = "did not change" if paired.b == paired.c else "rose" if paired.c > paired.b else "fell"
    size = "" if paired.b == paired.c else f" by {abs(100 * paired.difference):.1f} points"
    by_prompt = f"{_interval_points(paired.difference_low, paired.difference_high)}, exact McNemar p = {paired.p:.3g}"
    if paired.clusters < paired.n:
        units = f"{paired.n} paired prompts in {paired.clusters} clusters"
        by_cluster = _interval_points(paired.clustered_low, paired.clustered_high)
        statistics = (
            f"{by_cluster}, p = {paired.clustered_p:.3g}; with every prompt counted as independent, which is too "
            f"narrow: {by_prompt}"
        )
    else:
        units, statistics = f"{paired.n} paired prompts", by_prompt
    text = (
        f"{name[0].upper()}{name[1:]} {direction}{size} over {units} ({statistics}). This describes these two models; "
        "it does not show what caused the difference."
    )
    return " ".join(part for part in (text, margin_sentence(comparison.margin), lost_replies_note) if part)


def margin_sentence(margin: MarginComparison | None) -> str:
    """Change of the refusal margin with its interval; empty if it was not measured."""
    if margin is None:
        return ""
    interval = "" if margin.low is None or margin.high is None else f" (95 % {margin.low:+.2f} to {margin.high:+.2f})"
    return (
        f"The refusal margin went from {margin.before:.2f} to {margin.after:.2f} nats, a change of "
        f"{margin.change:+.2f}{interval}; above 0 the model would rather refuse."
    )


def lost_replies_sentence(comparison: VerdictComparison) -> str:
    """Bounds of the difference given replies without a verdict, as a sentence; empty if there are none."""
    difference_bounds = comparison.bounds
    if not difference_bounds.lost:
        return ""
    low, high = (f"{100 * limit:+.1f}" for limit in (difference_bounds.low, difference_bounds.high))
    return f"The difference is {bounds_sentence(low, f'{high} points', difference_bounds.lost)}."


def _interval_points(low: float, high: float) -> str:
    return f"95 % {100 * low:+.1f} to {100 * high:+.1f}"


def _named_summaries(comparison: VerdictComparison) -> tuple[tuple[str, VerdictSummary], tuple[str, VerdictSummary]]:
    return ("before", comparison.before), ("after", comparison.after)


def _rate_json(metric: str, rate: Rate) -> dict[str, float]:
    return {OUTCOMES[metric]: rate.successes, metric: rate.rate, "low": rate.low, "high": rate.high}
