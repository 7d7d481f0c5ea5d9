"""Every run's counts and bounds, and examples of replies, redacted where prompts are harmful unless asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from undersong.report import words
from undersong.report.schema import Example, Results, Run, SetResult
from undersong.report.summary import arms, base_runs


@dataclass(frozen=True, slots=True)
class Counted:
    """One run on one prompt set, as a row of text: `places` says where, `cells` what was counted."""

    places: tuple[str, ...]
    cells: tuple[str, ...]
    voices: str


@dataclass(frozen=True, slots=True)
class ArmRuns:
    """An arm, or the base, run by run: `name` as in the results, `title` for readers, `summary` of runs and steps."""

    title: str
    name: str
    summary: str
    rows: tuple[Counted, ...]


@dataclass(frozen=True, slots=True)
class Said:
    """An example of a reply; `place`: arm, seed, step, set, modality and system text, in words."""

    place: str
    prompt_id: str
    text: str
    verdict: str
    reply: str | None  # None: redacted, or not in the results
    redacted: bool


@dataclass(frozen=True, slots=True)
class Details:
    """Counts of every run, and examples.  `replies`: all that were asked for, at every step; `redacted`: of the
    examples."""

    head: tuple[str, ...]
    arms: tuple[ArmRuns, ...]
    unjudged: int  # replies that failed or could not be judged
    replies: int
    harmful: tuple[Said, ...]
    benign: tuple[Said, ...]
    redacted: int


HEAD = (
    "Seed", "Draw", "Base", "Step", "Loss", "Set", "Prompts", "System", "Judge", "n", "clusters", "jailbreak", "answer",
    "refusal", "other", "unparsed", "error", "rate, %", "95 % interval", "bounds, %", "right, %", "95 % of right",
)  # fmt: skip
PLACES = 9  # of these columns say where, the others what was counted


def build(results: Results, show_replies: bool) -> Details | None:
    """None without runs.  Replies are shown to prompts of benign sets, and with `show_replies` to all."""
    if not results.runs:
        return None
    groups = [("Base", "base", base_runs(results))] if base_runs(results) else []
    groups += [(words.sentence(arm.label), arm.name, list(arm.runs)) for arm in arms(results)]
    rows = [row for run in results.runs for row in run.sets]
    harmful_sets = {row.set for row in rows if row.harmful}
    benign_sets = {row.set for row in rows if not row.harmful} - harmful_sets
    said = [(example, _said(example, example.set in benign_sets or show_replies)) for example in results.examples]
    return Details(
        head=HEAD,
        arms=tuple(ArmRuns(title, name, _summary(runs), tuple(_counted(runs))) for title, name, runs in groups),
        unjudged=sum(row.unparsed + row.error for row in rows),
        replies=sum(row.n for row in rows),
        harmful=tuple(item for example, item in said if example.set not in benign_sets),
        benign=tuple(item for example, item in said if example.set in benign_sets),
        redacted=sum(1 for _, item in said if item.redacted),
    )


def _summary(runs: Sequence[Run]) -> str:
    steps = sorted({run.step for run in runs})
    seeds = {(run.base_seed, run.draw, run.seed) for run in runs}
    named = f"step{'' if len(steps) == 1 else 's'} {', '.join(map(str, steps))}"
    return f"{words.count(len(seeds), 'run')}, {named}"


def _counted(runs: Sequence[Run]) -> Iterable[Counted]:
    for run in sorted(runs, key=lambda run: (str(run.base_seed), str(run.draw), str(run.seed), run.step)):
        for row in run.sets:
            yield Counted(_places(run, row), _cells(row), _voices(row))


def _places(run: Run, row: SetResult) -> tuple[str, ...]:
    return (
        words.plain(run.seed), words.plain(run.draw), words.plain(run.base_seed), str(run.step),
        words.decimal(run.loss), row.set, words.spoken(row.modality), row.system, row.judge or words.NONE,
    )  # fmt: skip


def _cells(row: SetResult) -> tuple[str, ...]:
    counts = (row.jailbreak, row.answer, row.refusal, row.other, row.unparsed, row.error)
    bounds = (row.rate_errors_safe, row.rate_errors_jailbroken)
    known = [words.bare(bound) for bound in bounds if bound is not None]
    return (
        str(row.n), words.plain(row.clusters), *map(str, counts), words.bare(row.rate),
        words.bracket(row.low, row.high) or words.NONE, " – ".join(known) or words.NONE,
        words.bare(row.right_rate), words.bracket(row.right_low, row.right_high) or words.NONE,
    )  # fmt: skip


def _voices(row: SetResult) -> str:
    return " · ".join(f"{name} {words.bare(voice.rate)} ({voice.n})" for name, voice in row.by_speaker.items())


def _said(example: Example, shown: bool) -> Said:
    parts = [example.arm, f"seed {example.seed}" if example.seed is not None else ""]
    parts += [f"step {example.step}" if example.step is not None else "", example.set]
    parts += [
        words.spoken(example.modality) if example.modality else "",
        f"“{example.system}”" if example.system else "",
    ]
    return Said(
        place=" · ".join(filter(None, parts)),
        prompt_id=example.prompt_id,
        text=example.text or "",
        verdict=example.verdict or words.NONE,
        reply=example.reply if shown else None,
        redacted=not shown or example.reply is None,
    )
