"""The numbers the figures stand on: one estimate an arm, model and modality of prompts, at the arm's last step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from undersong.report import words
from undersong.report.schema import Results
from undersong.report.summary import Arm, Estimate, View, arms, base_runs, estimate, view


@dataclass(frozen=True, slots=True)
class Told:
    """An arm as one model has it (its runs are that model's), and its rate on prompts of one modality."""

    arm: Arm
    model: str
    asked: str  # modality of the prompts
    number: Estimate


def shown(results: Results) -> View | None:
    """Which verdicts the figures are about: the page's (`summary.view`); None where no harmful set was measured."""
    return view(results)


def told(results: Results, given: View) -> list[Told]:
    """Every arm as each model has it, in the order of the page."""
    return list(_told(results, given))


def _told(results: Results, given: View) -> Iterator[Told]:
    for arm in arms(results):
        for model in dict.fromkeys(run.model for run in arm.runs):
            own = replace(arm, runs=tuple(run for run in arm.runs if run.model == model))
            for asked in ("audio", "text"):
                number = estimate(given.cells(own.at(own.last_step), asked))
                if number is not None:
                    yield Told(own, model or "the model", asked, number)


def base(results: Results, given: View, model: str, asked: str) -> Estimate | None:
    """The rate of one untuned model on prompts of the modality `asked`; None where it was not asked them."""
    runs = [run for run in base_runs(results) if (run.model or "the model") == model]
    return estimate(given.cells(runs, asked))


def title(model: str, many: bool, *parts: str) -> str:
    """Of a panel: what differs between panels."""
    return words.sentence(" · ".join(filter(None, (*([model] if many else []), *parts))))
