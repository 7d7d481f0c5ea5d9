"""From runs to what a reader compares: arms, facets, and one estimate with its interval for each.

Claims about an arm rest on runs, not prompts: several runs give the mean and the 95 % t interval over runs.  One run,
or runs that agree to the last prompt, give the interval over prompts that the run came with, and the estimate says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from undersong.report.schema import Comparison, Results, Run, SetResult
from undersong.report.words import THIN

KINDS = ("base", "closest", "random", "distant")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (or a difference of shares) and its 95 % interval, `low` and `high` None where none was measured."""

    mean: float
    low: float | None
    high: float | None
    runs: int
    over: str  # what the interval is over: runs | prompts
    n: int = 0  # prompts in each run
    clusters: int | None = None


@dataclass(frozen=True, slots=True)
class Arm:
    """One fine-tuning condition with all its runs, by step."""

    name: str
    axis: str | None
    kind: str
    fraction: float | None
    k: int | None
    train_modality: str | None
    runs: tuple[Run, ...]

    @property
    def last_step(self) -> int:
        return max(run.step for run in self.runs)

    def at(self, step: int) -> list[Run]:
        return [run for run in self.runs if run.step == step]

    @property
    def amount(self) -> str:
        if self.fraction is not None:
            return f"{100 * self.fraction:g}{THIN}%"
        return f"{self.k} samples" if self.k is not None else ""

    @property
    def label(self) -> str:
        """'closest 25 %, semantic axis, trained on audio'."""
        parts = [f"{self.kind} {self.amount}".strip()]
        if self.axis:
            parts.append(f"{self.axis} axis")
        if self.train_modality:
            parts.append(f"trained on {self.train_modality}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class View:
    """Which verdicts the page is about: the harmful set, the system text and the judge it shows first."""

    set: str
    system: str
    judge: str | None
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only

    def row(self, run: Run, modality: str, system: str | None = None, set: str | None = None) -> SetResult | None:
        wanted = (set or self.set, modality, system or self.system)
        rows = [row for row in run.sets if (row.set, row.modality, row.system) == wanted]
        return next((row for row in rows if row.judge == self.judge), rows[0] if rows else None)

    def rows(self, runs: Iterable[Run], modality: str, system: str | None = None) -> list[SetResult]:
        found = [self.row(run, modality, system) for run in runs]
        return [row for row in found if row is not None and row.rate is not None]


def view(results: Results) -> View | None:
    """None when no harmful set was measured."""
    rows = [row for run in results.runs for row in run.sets if row.harmful]
    if not rows:
        return None
    sets = list(dict.fromkeys(row.set for row in rows))
    systems = list(dict.fromkeys(row.system for row in rows))
    judges = list(dict.fromkeys(row.judge for row in rows))
    wanted = results.study.judge
    refusal_only = all(row.jsr is None for row in rows) or any(
        comparison.metric == "non_refusal_rate" for comparison in results.comparisons
    )
    return View(
        set="harm" if "harm" in sets else sets[0],
        system="plain" if "plain" in systems else systems[0],
        judge=wanted if wanted in judges else judges[0],
        rate="non-refusal rate" if refusal_only else "JSR",
    )


def base_runs(results: Results) -> list[Run]:
    return [run for run in results.runs if run.kind == "base"]


def arms(results: Results) -> list[Arm]:
    """Every fine-tuned arm: by axis and fraction as they first appear, then audio before text, then by kind."""
    groups: dict[str, list[Run]] = {}
    for run in results.runs:
        if run.kind != "base":
            groups.setdefault(run.arm, []).append(run)
    found = [
        Arm(name, runs[0].axis, runs[0].kind, runs[0].fraction, runs[0].k, runs[0].train_modality, tuple(runs))
        for name, runs in groups.items()
    ]
    places = list(dict.fromkeys((arm.axis, arm.fraction) for arm in found))
    return sorted(
        found,
        key=lambda arm: (places.index((arm.axis, arm.fraction)), arm.train_modality or "", kind_order(arm.kind)),
    )


def kind_order(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


@dataclass(frozen=True, slots=True)
class Facet:
    """Arms that differ in kind and training modality only, and the base they started from."""

    title: str
    arms: tuple[Arm, ...]
    bases: tuple[Run, ...]
    axis: str | None

    def of(self, train_modality: str | None) -> list[Arm]:
        return [arm for arm in self.arms if arm.train_modality == train_modality]

    @property
    def train_modalities(self) -> list[str | None]:
        return list(dict.fromkeys(arm.train_modality for arm in self.arms))


def facets(results: Results) -> list[Facet]:
    """One for each model, base seed, axis and fraction; a title names only what differs between them."""
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms(results):
        for model, base_seed in dict.fromkeys((run.model, run.base_seed) for run in arm.runs):
            runs = tuple(run for run in arm.runs if (run.model, run.base_seed) == (model, base_seed))
            part = Arm(arm.name, arm.axis, arm.kind, arm.fraction, arm.k, arm.train_modality, runs)
            groups.setdefault((model, base_seed, arm.axis, arm.fraction), []).append(part)
    differs = [len({key[i] for key in groups}) > 1 for i in range(4)]

    def title(key: tuple[Any, ...], amount: str) -> str:
        named = (key[0], f"base {key[1]}", f"{key[2]} axis", amount)
        return ", ".join(str(name) for name, wanted in zip(named, differs, strict=True) if wanted)

    every = base_runs(results)
    return [
        Facet(
            title(key, members[0].amount),
            tuple(members),
            tuple(run for run in every if (run.model, run.base_seed) == key[:2]) or tuple(every),
            key[2],
        )
        for key, members in groups.items()
    ]


def over_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of the mean of runs; None for fewer than two runs, or for runs that are all equal."""
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    from scipy.stats import sem, t

    low, high = t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=sem(values))
    return float(low), float(high)


def estimate(rows: Sequence[SetResult]) -> Estimate | None:
    """The mean rate of runs measured on the same prompts; None where nothing was measured."""
    rates = [(row.rate, row) for row in rows if row.rate is not None]
    if not rates:
        return None
    values = [rate for rate, _ in rates]
    first = rates[0][1]
    interval = over_runs(values)
    if interval is not None:
        low, high = max(0.0, interval[0]), min(1.0, interval[1])
        return Estimate(float(np.mean(values)), low, high, len(values), "runs", first.n, first.clusters)
    lows = [row.low for _, row in rates if row.low is not None]
    highs = [row.high for _, row in rates if row.high is not None]
    complete = len(lows) == len(highs) == len(values)
    return Estimate(
        float(np.mean(values)),
        min(lows) if complete else None,
        max(highs) if complete else None,
        len(values),
        "prompts",
        first.n,
        first.clusters,
    )


def difference(values: Sequence[float]) -> Estimate | None:
    """The mean of paired differences, one a pair, with its interval over pairs."""
    if not values:
        return None
    low, high = over_runs(values) or (None, None)
    return Estimate(float(np.mean(values)), low, high, len(values), "runs")


def relation(a: Estimate, b: Estimate, compared: Comparison | None = None) -> str:
    """How a stands to b: 'higher', 'lower', 'same' (not distinguishable) or 'unknown' (no interval).

    A paired comparison of the two decides where the results hold one (its interval, and its corrected p); else the two
    intervals do, which must not overlap.
    """
    if compared is not None and compared.low is not None and compared.high is not None:
        p = compared.p_adjusted if compared.p_adjusted is not None else compared.p
        if compared.low <= 0 <= compared.high or (p is not None and p >= 0.05):
            return "same"
        return "higher" if compared.low > 0 else "lower"
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return "unknown"
    if a.low > b.high:
        return "higher"
    return "lower" if a.high < b.low else "same"
