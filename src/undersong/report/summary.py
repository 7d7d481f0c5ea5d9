"""From runs to what a reader compares: arms, facets, and one estimate with its interval for each.

Claims about an arm rest on runs, not prompts: several runs give the mean and the 95 % t interval over runs.  One run,
or runs that agree to the last prompt, give the interval over prompts that the run came with, and the estimate says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from undersong.report.schema import Comparison, Results, Run, SetResult
from undersong.report.words import THIN
from undersong.statistics import mean_runs

KINDS = ("base", "closest", "random", "distant")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share (or a difference of shares) and its 95 % interval, `low` and `high` None where none was measured."""

    mean: float
    low: float | None
    high: float | None
    runs: int
    over: str  # what the interval is over: runs | prompts
    method: str
    n: int = 0  # prompts in each run
    clusters: int | None = None
    asked: int = 0  # replies in all runs
    lost: int = 0  # of them failed or not judged, which the mean does not count

    @property
    def most(self) -> float:
        """The mean with all that is lost counted."""
        return min(1.0, self.mean + self.lost / self.asked) if self.lost else self.mean


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
    short: str  # its label without what all arms of the study share
    rule: str = ""

    @property
    def last_step(self) -> int:
        """The largest step that any of its runs was measured at."""
        return max(run.step for run in self.runs)

    def at(self, step: int) -> list[Run]:
        """The points of its runs at that step: one a base, draw and seed."""
        return [run for run in self.runs if run.step == step]

    @property
    def amount(self) -> str:
        """How much was selected: '25 %', or '40 samples' by a rule or where no share is known; empty: nothing is."""
        if self.rule and self.k is not None:  # its share may be of a threshold, or not have been had
            return f"{self.k} samples"
        if self.fraction is not None:
            return f"{100 * self.fraction:.3g}{THIN}%"
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
class Cell:
    """A run and what one of its prompt sets gave."""

    run: Run
    row: SetResult
    rate: float


@dataclass(frozen=True, slots=True)
class View:
    """Which verdicts the page is about: the harmful set, the system text and the judge it shows first."""

    set: str
    system: str
    judge: str | None
    rate: str  # JSR, or non-refusal rate where the judge sees refusal only

    def row(self, run: Run, modality: str, system: str | None = None) -> SetResult | None:
        """What the run gave on these prompts by the page's judge, or by the first; None where it was not asked them.

        `system`: the name of a system text, by default the page's.
        """
        wanted = (self.set, modality, system or self.system)
        rows = [row for row in run.sets if (row.set, row.modality, row.system) == wanted]
        return next((row for row in rows if row.judge == self.judge), rows[0] if rows else None)

    def cells(self, runs: Iterable[Run], modality: str, system: str | None = None) -> list[Cell]:
        """Those of the runs in which this was measured."""
        found = [(run, self.row(run, modality, system)) for run in runs]
        return [Cell(run, row, row.rate) for run, row in found if row is not None and row.rate is not None]


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


def rate_name(results: Results) -> str:
    """What the page calls the share of harmful prompts that get through."""
    shown = view(results)
    return "JSR" if shown is None else shown.rate


def base_runs(results: Results) -> list[Run]:
    """The points of untuned models."""
    return [run for run in results.runs if run.kind == "base"]


def arms(results: Results) -> list[Arm]:
    """Every fine-tuned arm: by axis and fraction as they first appear, then audio before text, then by kind."""
    groups: dict[str, list[Run]] = {}
    for run in results.runs:
        if run.kind != "base":
            groups.setdefault(run.arm, []).append(run)
    first = [runs[0] for runs in groups.values()]
    axes, fractions = {run.axis for run in first}, {(run.fraction, run.k) for run in first}
    found = [_arm(name, runs, len(axes) > 1, len(fractions) > 1) for name, runs in groups.items()]
    places = list(dict.fromkeys((arm.axis, arm.fraction) for arm in found))
    return sorted(
        found,
        key=lambda arm: (places.index((arm.axis, arm.fraction)), arm.train_modality or "", kind_order(arm.kind)),
    )


def _arm(name: str, runs: Sequence[Run], many_axes: bool, many_amounts: bool) -> Arm:
    one = runs[0]
    arm = Arm(name, one.axis, one.kind, one.fraction, one.k, one.train_modality, tuple(runs), "", one.rule or "")
    parts = [f"{arm.kind} {arm.amount}" if many_amounts else arm.kind, f"{arm.axis} axis" if many_axes else ""]
    parts.append(f"trained on {arm.train_modality}" if arm.train_modality else "")
    return replace(arm, short=", ".join(filter(None, parts)))


def kind_order(kind: str) -> int:
    """The place of a kind of selection: base, closest, random, distant, then all others alike."""
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


@dataclass(frozen=True, slots=True)
class Facet:
    """Arms that differ in kind and training modality only, and the base they started from."""

    title: str
    arms: tuple[Arm, ...]
    bases: tuple[Run, ...]
    axis: str | None

    def of(self, train_modality: str | None) -> list[Arm]:
        """Its arms trained on one modality, in its order."""
        return [arm for arm in self.arms if arm.train_modality == train_modality]

    @property
    def train_modalities(self) -> list[str | None]:
        """What its arms were trained on, each once, in the order of the arms."""
        return list(dict.fromkeys(arm.train_modality for arm in self.arms))


def facets(results: Results) -> list[Facet]:
    """One for each model, base seed, axis and fraction; a title names only what differs between them."""
    groups: dict[tuple[Any, ...], list[Arm]] = {}
    for arm in arms(results):
        for model, base_seed in dict.fromkeys((run.model, run.base_seed) for run in arm.runs):
            runs = tuple(run for run in arm.runs if (run.model, run.base_seed) == (model, base_seed))
            groups.setdefault((model, base_seed, arm.axis, arm.fraction), []).append(replace(arm, runs=runs))
    differs = [len({key[i] for key in groups}) > 1 for i in range(4)]

    def title(key: tuple[Any, ...], amount: str) -> str:
        named = (f"model {key[0]}", f"base {key[1]}", f"{key[2]} axis", amount)
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


def interval_over_runs(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % t interval of the mean of independent runs; None where they cannot show run noise."""
    found = mean_runs(values)
    return (found.low, found.high) if found.low is not None and found.high is not None else None


def estimate(cells: Sequence[Cell]) -> Estimate | None:
    """The mean rate of runs asked the same prompts; None where nothing was measured."""
    if not cells:
        return None
    bases = list(dict.fromkeys((cell.run.model, cell.run.base_seed) for cell in cells))
    rates = {
        (bases.index((cell.run.model, cell.run.base_seed)), cell.run.draw or 0, cell.run.seed or 0): cell.rate
        for cell in cells
    }
    found, rows = mean_runs(rates, limits=(0.0, 1.0)), [cell.row for cell in cells]
    lost = sum(row.error + row.unparsed for row in rows)
    asked = rows[0].n, rows[0].clusters, sum(row.n for row in rows), lost
    if found.low is not None:
        return Estimate(found.mean, found.low, found.high, found.n, "runs", found.method, *asked)
    lows = [cell.row.low for cell in cells if cell.row.low is not None]
    highs = [cell.row.high for cell in cells if cell.row.high is not None]
    complete = len(lows) == len(highs) == len(cells)
    low, high = (min(lows), max(highs)) if complete else (None, None)
    return Estimate(found.mean, low, high, found.n, "prompts", "over prompts", *asked)


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
