"""How far the claims of the first screen reach."""

from __future__ import annotations

from undersong.pages import formatting
from undersong.report.arm_comparisons import HeadlineData
from undersong.report.summary import Estimate, base_runs


def scope_sentence(headline: HeadlineData) -> str:
    """Scope of the claim in a sentence: runs, bases, prompts, and what the intervals are over."""
    runs = headline.results.runs
    prompt_set = headline.verdict_filter.prompt_set
    row = next((row for run in runs for row in run.rates if row.prompt_set == prompt_set), None)
    prompt_note = ""
    if row is not None:
        prompt_note = f" Each run answers {formatting.count(row.n, 'prompt')}"
        prompt_note += f" in {formatting.count(row.clusters, 'cluster')}." if row.clusters else "."
    bases = formatting.count(max(len({(run.model, run.base_seed) for run in base_runs(headline.results)}), 1), "base")
    if len({(effect.model, effect.base_seed) for effect in headline.results.marginal_effects}) > 1:
        prompt_note += " Here the models are taken together; “Model comparison” has each for itself."
    if headline.worst is None:
        return f"{bases.capitalize()}, no fine-tuning run.{prompt_note}"
    n = headline.worst.estimate.runs
    if n == 1:
        interval_note = (
            "Intervals are over prompts." if headline.worst.estimate.low is not None else "There is no interval."
        )
        return (
            f"One run on {bases}: this speaks of this model, not of the recipe; another training seed may "
            f"differ. {interval_note}{prompt_note}"
        )
    interval_note = (
        f"Intervals (95 %): {_interval_method(headline.worst.estimate)} for arms (over prompts "
        "where their runs all agree)"
    )
    interval_note += f", {_interval_method(headline.base)} for the base" if headline.base is not None else ""
    if headline.worst.estimate.interval_over == "prompts":
        interval_note = "The runs agree, so intervals are over prompts (95 %)"
    caveats = " So few runs show, they do not prove." if n < 5 else ""
    if headline.n_arms > 1 and not headline.tied:
        caveats += " The worst arm was picked for being the worst, so its number leans high."
    return f"{n} runs an arm on {bases}. {interval_note}.{caveats}{prompt_note}"


def _interval_method(estimate: Estimate) -> str:
    return estimate.method if estimate.interval_over == "prompts" else f"Student’s {estimate.method}"
