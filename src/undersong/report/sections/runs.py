"""Verdict counts and bounds of every run, and example replies; replies to harmful prompts are redacted by default."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undersong.report import formatting
from undersong.report.summary import arm_summaries, base_runs
from undersong.results.schema import PromptSetRate, ReplyExample, Results, RunResult


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
class ExampleReply:
    """Example of a reply; `place` describes its arm, seed, step, set, modality and system prompt."""

    place: str
    prompt_id: str
    text: str
    verdict: str
    reply: str | None  # None: redacted, or not in the results
    redacted: bool


@dataclass(frozen=True, slots=True)
class RunDetails:
    """Counts of every run, and example replies.

    `replies` counts all replies at every step; `redacted` counts redacted examples.
    """

    head: tuple[str, ...]
    arms: tuple[ArmRuns, ...]
    unjudged: int  # replies that failed or could not be judged
    replies: int
    harmful: tuple[ExampleReply, ...]
    benign: tuple[ExampleReply, ...]
    redacted: int


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


def build_run_details(results: Results, show_replies: bool) -> RunDetails | None:
    """Build the details of every run, with example replies; None if there are no runs.

    Replies to benign prompts are always shown; those to harmful prompts only with `show_replies`.
    """
    if not results.runs:
        return None
    groups = [("Base", "base", base_runs(results))] if base_runs(results) else []
    groups += [(formatting.capitalize_first(arm.label), arm.name, list(arm.runs)) for arm in arm_summaries(results)]
    rows = [row for run in results.runs for row in run.rates]
    harmful_sets = {row.prompt_set for row in rows if row.harmful}
    benign_sets = {row.prompt_set for row in rows if not row.harmful} - harmful_sets
    example_replies = [
        (example, _example_reply(example, example.prompt_set in benign_sets or show_replies))
        for example in results.examples
    ]
    has_margin = any(row.refusal_margin is not None for row in rows)
    return RunDetails(
        head=(*COUNT_HEADINGS, *(MARGIN_HEADINGS if has_margin else ())),
        arms=tuple(
            ArmRuns(title, name, _run_summary(runs), tuple(_run_counts(runs, has_margin)))
            for title, name, runs in groups
        ),
        unjudged=sum(row.lost for row in rows),
        replies=sum(row.n for row in rows),
        harmful=tuple(
            example_reply for example, example_reply in example_replies if example.prompt_set not in benign_sets
        ),
        benign=tuple(example_reply for example, example_reply in example_replies if example.prompt_set in benign_sets),
        redacted=sum(1 for _, example_reply in example_replies if example_reply.redacted),
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


def _example_reply(example: ReplyExample, show_reply: bool) -> ExampleReply:
    parts = [example.arm, f"seed {example.seed}" if example.seed is not None else ""]
    parts += [f"step {example.step}", example.prompt_set, formatting.modality_label(example.modality)]
    parts += [f"“{example.system}”"]
    return ExampleReply(
        place=" · ".join(filter(None, parts)),
        prompt_id=example.prompt_id,
        text=example.prompt_text or "",
        verdict=example.verdict,
        reply=example.reply if show_reply else None,
        redacted=not show_reply or example.reply is None,
    )
