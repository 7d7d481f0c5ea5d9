"""The numbers the figures stand on: one estimate an arm, model and modality of prompts, at the arm's last step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from undersong.report import formatting
from undersong.report.summary import (
    ArmSummary,
    Estimate,
    VerdictFilter,
    arm_summaries,
    base_runs,
    default_verdict_filter,
    estimate_rate,
)
from undersong.results.schema import Results


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """An arm as one model has it (its runs are that model's), and its rate on prompts of one modality."""

    arm: ArmSummary
    model: str
    prompt_modality: str  # modality of the prompts
    estimate: Estimate


def figure_verdict_filter(results: Results) -> VerdictFilter | None:
    """Which verdicts the figures are about: the page's (`summary.view`); None where no harmful set was measured."""
    return default_verdict_filter(results)


def arm_estimates(results: Results, verdict_filter: VerdictFilter) -> list[ArmEstimate]:
    """Every arm as each model has it, in the order of the page."""
    return list(_iterate_arm_estimates(results, verdict_filter))


def _iterate_arm_estimates(results: Results, verdict_filter: VerdictFilter) -> Iterator[ArmEstimate]:
    for arm in arm_summaries(results):
        for model in dict.fromkeys(run.model for run in arm.runs):
            model_arm = replace(arm, runs=tuple(run for run in arm.runs if run.model == model))
            for prompt_modality in ("audio", "text"):
                rate_estimate = estimate_rate(
                    verdict_filter.run_rates(model_arm.runs_at(model_arm.last_step), prompt_modality)
                )
                if rate_estimate is not None:
                    yield ArmEstimate(model_arm, model or "the model", prompt_modality, rate_estimate)


def base_estimate(results: Results, verdict_filter: VerdictFilter, model: str, prompt_modality: str) -> Estimate | None:
    """The rate of one untuned model on prompts of the modality `asked`; None where it was not asked them."""
    runs = [run for run in base_runs(results) if (run.model or "the model") == model]
    return estimate_rate(verdict_filter.run_rates(runs, prompt_modality))


def panel_title(model: str, show_model: bool, *parts: str) -> str:
    """Of a panel: what differs between panels."""
    return formatting.capitalize_first(" · ".join(filter(None, (*([model] if show_model else []), *parts))))
