"""Verdict counts and bounds of every run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undersong.pages import formatting
from undersong.report.summary import arm_summaries, base_runs
from undersong.results.schema import PromptSetRate, Results, RunResult


@dataclass(frozen=True, slots=True)
class RunCounts:
    """Row of text for one run on one prompt set: `places` identifies the run, `cells` holds the counts."""

    places: tuple[str, ...]
    cells: tuple[str, ...]
    voices: str


@dataclass(frozen=True, slots=True)
class ArmRuns:
    """An arm, or the base, run by run: `name` as in the results, `title` for readers, `summary` of runs and steps."""

    title: str
    name: str
    summary: str
    rows: tuple[RunCounts, ...]


@dataclass(frozen=True, slots=True)
class RunDetails:
    """Counts of every run; `replies` counts all replies at every step."""

    head: tuple[str, ...]
    arms: tuple[ArmRuns, ...]
    unjudged: int  # replies that failed or could not be judged
    replies: int


COUNT_HEADINGS = (
    "Seed",
    "Draw",
    "Base",
    "Step",
    "Loss",
    "Set",
    "Prompts",
    "System",
    "Judge",
    "n",
    "clusters",
    "jailbreak",
    "answer",
    "refusal",
    "other",
    "unparsed",
    "empty",
    "error",
    "rate, %",
    "95 % interval",
    "bounds, %",
    "right, %",
    "95 % of right",
)
MARGIN_HEADINGS = ("refusal margin, nats", "95 % of the margin")
CONDITION_COLUMNS = 9  # columns that identify the run; the others hold counts


def build_run_details(results: Results) -> RunDetails | None:
    """Build the details of every run; None if there are no runs."""
    if not results.runs:
        return None
    groups = [("Base", "base", base_runs(results))] if base_runs(results) else []
    groups += [(formatting.capitalize_first(arm.label), arm.name, list(arm.runs)) for arm in arm_summaries(results)]
    rows = [row for run in results.runs for row in run.rates]
    has_margin = any(row.refusal_margin is not None for row in rows)
    return RunDetails(
        head=(*COUNT_HEADINGS, *(MARGIN_HEADINGS if has_margin else ())),
        arms=tuple(
            ArmRuns(title, name, _run_summary(runs), tuple(_run_counts(runs, has_margin)))
            for title, name, runs in groups
        ),
        unjudged=sum(row.lost for row in rows),
        replies=sum(row.n for row in rows),
    )


def _run_summary(runs: Sequence[RunResult]) -> str:
    steps = sorted({run.step for run in runs})
    seeds = {(run.base_seed, run.draw, run.seed) for run in runs}
    step_text = f"step{'' if len(steps) == 1 else 's'} {', '.join(map(str, steps))}"
    return f"{formatting.count(len(seeds), 'run')}, {step_text}"


def _run_counts(runs: Sequence[RunResult], has_margin: bool) -> Iterable[RunCounts]:
    for run in sorted(runs, key=lambda run: (str(run.base_seed), str(run.draw), str(run.seed), run.step)):
        for row in run.rates:
            cells = (*_count_cells(row), *(_margin_cells(row) if has_margin else ()))
            yield RunCounts(_condition_cells(run, row), cells, _voice_rates(row))


def _condition_cells(run: RunResult, row: PromptSetRate) -> tuple[str, ...]:
    return (
        formatting.value_text(run.seed),
        formatting.value_text(run.draw),
        formatting.value_text(run.base_seed),
        str(run.step),
        formatting.decimal(run.loss),
        row.prompt_set,
        formatting.modality_label(row.modality),
        row.system,
        row.judge,
    )


def _count_cells(row: PromptSetRate) -> tuple[str, ...]:
    bounds = f"{formatting.percent_number(row.min_rate)} – {formatting.percent_number(row.max_rate)}"
    return (
        str(row.n),
        formatting.value_text(row.clusters),
        *map(str, row.verdict_counts.values()),
        formatting.percent_number(row.rate),
        formatting.bracket(row.low, row.high) or formatting.MISSING,
        bounds,
        formatting.percent_number(row.correct_rate),
        formatting.bracket(row.correct_low, row.correct_high) or formatting.MISSING,
    )


def _margin_cells(row: PromptSetRate) -> tuple[str, ...]:
    interval = formatting.nats_bracket(row.refusal_margin_low, row.refusal_margin_high)
    return formatting.nats_number(row.refusal_margin), interval or formatting.MISSING


def _voice_rates(row: PromptSetRate) -> str:
    return " · ".join(
        f"{name} {formatting.percent_number(voice.rate)} ({voice.n})" for name, voice in row.by_voice.items()
    )
