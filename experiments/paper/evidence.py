"""Estimates out of results.json files: which runs, of which study, against which.

A run gives one number, its mean over the arms that a side takes; runs are paired by (base, draw, seed).  Two trained
arms are compared by a paired t test: where they do not differ, their paired differences scatter alike on both sides of
0, whatever the run noise.  A rate, a difference from a base and a margin have no such symmetry, so they are bounded for
any run noise (`undersong.statistics.run_bounds`).  Knows results; does not know what a paper says of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from pathlib import Path
from statistics import fmean
from typing import Literal, TypeVar

from experiments.paper.agreement import Estimate, Expected
from undersong.results.schema import PromptSetRate, Results, RunResult, parse_results
from undersong.statistics.rates import critical_value
from undersong.statistics.run_bounds import (
    RunBounds,
    bound_change_from_base,
    bound_run_mean,
    prompt_interval,
    run_mean_p,
)
from undersong.statistics.runs import RunKey, paired_runs
from undersong.types import UndersongError

SHARES = (-1.0, 1.0)
COPY_OFFSET = 1_000_000  # larger than any base, draw or seed

Value = TypeVar("Value")


@dataclass(frozen=True)
class Where:
    """A study: its file, and what its matrix calls the variant beside the organism."""

    file: str
    variant: str = ""

    def study(self, organism: str) -> str:
        """The name of the organism's study, as its results say it."""
        parts = ("organism", self.file.replace("_", "-"), organism, self.variant)
        return "-".join(part for part in parts if part)


class Evidence:
    """The results that there are, by the name of their study; each is read once.

    Args:
        folder: Folder with one folder for each study.
        substitutes: `file` or `file-variant` of a study -> the file that holds the same arms; default: none.
    """

    def __init__(self, folder: Path, substitutes: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._substitutes = substitutes or {}
        self._read: dict[str, dict[int, Results]] = {}

    def results(self, where: Where, organism: str) -> Results | None:
        """Results of a study that is run as a whole; None: it has none yet."""
        return self.of_bases(where, organism).get(0)

    def of_bases(self, where: Where, organism: str) -> dict[int, Results]:
        """Seed of the base -> results of its own study `NAME-SEED`; 0 -> those of a study of all bases together."""
        held = self._substitutes.get("-".join(part for part in (where.file, where.variant) if part))
        name = (Where(held) if held else where).study(organism)
        if name not in self._read:
            suffixes = (folder.name[len(name) + 1 :] for folder in self._folder.glob(f"{name}-*"))
            folders = {int(suffix): f"{name}-{suffix}" for suffix in suffixes if suffix.isdecimal()} | {0: name}
            files = {seed: self._folder / folder / "results.json" for seed, folder in sorted(folders.items())}
            self._read[name] = {
                seed: self._open(file, file.parent.name) for seed, file in files.items() if file.is_file()
            }
        return self._read[name]

    @staticmethod
    def _open(file: Path, name: str) -> Results:
        try:
            found = json.loads(file.read_bytes())
        except ValueError as error:
            raise UndersongError(f"{file} is not JSON ({error}); run its study again.") from error
        if not isinstance(found, dict) or found.get("study", {}).get("name") != name:
            raise UndersongError(f"{file} is not of the study {name}; take it out of there, and run the study.")
        return parse_results(found, str(file))


@dataclass(frozen=True)
class Side:
    """Runs of a study, and what they are asked.

    Attributes:
        kind: Kind of the selection; base: the model before tuning.
        axes: Axes that a run is averaged over; none: all of the study.
        step: Training step; None: the last; mean: the mean over all saved steps.
        sets: Prompt sets that a run is averaged over.
        counted: Rate that counts; right and refused are rates of benign sets.
    """

    where: Where
    kind: str
    axes: tuple[str, ...] = ()
    trained: str = "audio"
    asked: str = "audio"
    system: str = "plain"
    sets: tuple[str, ...] = ("harm",)
    fraction: float = 0.25
    step: int | Literal["mean"] | None = None
    counted: Literal["jsr", "right", "refused"] = "jsr"

    def entries(self, evidence: Evidence, organism: str) -> dict[RunKey, list[PromptSetRate]]:
        """(base, draw, seed) -> the asked sets of each arm; of a base, (base, 0, 0).  Empty: there are no such runs."""
        found: dict[RunKey, list[PromptSetRate]] = {}
        for base, results in evidence.of_bases(self.where, organism).items():
            step = self.step if self.step is not None else results.study.steps[-1]
            for run in filter(lambda run, step=step: self._takes(run, step), results.runs):
                rates = (run.find_rate(name, self.asked, self.system) for name in self.sets)
                entries = [rate for rate in rates if rate is not None]
                if entries:
                    found.setdefault(with_base(run.run_key, base), []).extend(entries)
        return found

    def _takes(self, run: RunResult, step: int | Literal["mean"]) -> bool:
        if self.kind == "base":
            return run.kind == "base"
        place = (run.kind, run.train_modality, run.fraction)
        return (
            place == (self.kind, self.trained, self.fraction)
            and step in ("mean", run.step)
            and (not self.axes or run.axis in self.axes)
        )

    def rate(self, entry: PromptSetRate) -> float:
        """The share of a set that is counted."""
        if self.counted != "right":
            return entry.rate
        assert entry.correct_rate is not None, "the set is benign"
        return entry.correct_rate

    def ends(self, entry: PromptSetRate) -> tuple[float, float]:
        """Its interval over prompts."""
        low, high = (entry.correct_low, entry.correct_high) if self.counted == "right" else (entry.low, entry.high)
        assert low is not None
        assert high is not None
        return low, high


@dataclass(frozen=True)
class Contrast:
    """`b` less `a`, or `b` alone."""

    a: Side | None
    b: Side

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: a side has no runs in these results."""
        after = self.b.entries(evidence, organism)
        before = {} if self.a is None else self.a.entries(evidence, organism)
        if not after or (self.a is not None and not before):
            return None
        if self.a is not None and self.a.kind == "base":
            before = {key: before[key[0], 0, 0] for key in after}
        ups = {key: fmean(map(self.b.rate, mine)) for key, mine in after.items()}
        downs = {key: fmean(map(self.a.rate, before[key])) if self.a else 0.0 for key in before or after}
        if self.b.kind != "base" and not self._is_symmetric(expected):
            return self._bounded(before, after, downs, ups, expected)
        found = over_runs(downs, ups, expected, (0.0, 1.0) if self.a is None else SHARES)
        return self._over_prompts(after, found) if self.b.kind == "base" and found.low is None else found

    def _is_symmetric(self, expected: Expected) -> bool:
        """Whether it is an estimate alone, or a difference of two trained arms that is held against 0."""
        return expected.side == "nothing" or (self.a is not None and self.a.kind != "base" and expected.edge == 0)

    def _over_prompts(self, after: Mapping[RunKey, list[PromptSetRate]], found: Estimate) -> Estimate:
        """Of a base that nothing was done to: the widest interval over prompts."""
        ends = [(fmean(side) for side in zip(*map(self.b.ends, mine))) for mine in after.values()]
        lows, highs = zip(*ends)
        return Estimate(found.value, min(lows), max(highs), None, found.runs, found.units, "prompts", note=found.note)

    def _bounded(
        self,
        before: Mapping[RunKey, list[PromptSetRate]],
        after: Mapping[RunKey, list[PromptSetRate]],
        downs: Mapping[RunKey, float],
        ups: Mapping[RunKey, float],
        expected: Expected,
    ) -> Estimate:
        """For any run noise: of a rate or its difference from a base with the error over prompts, of a difference of two
        trained arms on the same prompts."""
        values = {key: up - downs[key] for key, up in ups.items()}

        def bounds_at(confidence: float, copies: int = 1) -> RunBounds:
            if self.a is not None and self.a.kind != "base":
                shares = _copied(values, copies)
                return bound_run_mean(shares, shares, confidence, SHARES)
            ends = {key: _ends_at(self.b, mine, confidence) for key, mine in after.items()}
            was = {key: _ends_at(self.a, before[key], confidence) if self.a else (0.0, 0.0) for key in after}
            return bound_change_from_base(_copied(was, copies), _copied(ends, copies), confidence)

        def bounds_of_copies(copies: int, confidence: float) -> tuple[float, float]:
            bounds = bounds_at(confidence, copies)
            return bounds.low, bounds.high

        plain = paired_runs(dict.fromkeys(values, 0.0), values)
        bounds = bounds_at(0.975)
        if bounds.units < 2:
            return Estimate(plain.difference, None, None, None, plain.n, plain.units, "runs", note=plain.note)
        edges = [expected.nearest(plain.difference)]
        if expected.side == "within" and expected.holds(plain.difference):
            edges = [-expected.edge, expected.edge]
        p = max(run_mean_p(bounds_at, edge) for edge in edges)
        sd = _unit_sd(plain.low, plain.high, plain.units)
        return Estimate(
            plain.difference, bounds.low, bounds.high, p, plain.n, plain.units, "runs", sd,
            bounds_of_copies=bounds_of_copies,
        )  # fmt: skip


def _copied(of_runs: Mapping[RunKey, Value], copies: int) -> dict[RunKey, Value]:
    """The same numbers from as many times the units."""
    position = next((place for place in range(3) if len({key[place] for key in of_runs}) > 1), 2)
    copied: dict[RunKey, Value] = {}
    for copy in range(copies):
        for key, value in of_runs.items():
            parts = list(key)
            parts[position] += copy * COPY_OFFSET
            copied[parts[0], parts[1], parts[2]] = value
    return copied


def with_base(key: RunKey, base: int) -> RunKey:
    """The run's key with the base that its study is of; 0: the study numbers its bases itself."""
    return (base or key[0], key[1], key[2])


def _ends_at(side: Side, entries: list[PromptSetRate], confidence: float) -> tuple[float, float]:
    """Of a run, its mean over arms: the ends over prompts at a one-sided confidence."""
    ends = [
        prompt_interval(side.rate(entry), *side.ends(entry), entry.n, entry.clusters, confidence) for entry in entries
    ]
    return fmean(low for low, _ in ends), fmean(high for _, high in ends)


def over_runs(
    a: Mapping[RunKey, float], b: Mapping[RunKey, float], expected: Expected, limits: tuple[float, float]
) -> Estimate:
    """b - a over paired runs, tested against the nearest edge of what is expected.

    Runs that agree exactly are bounded within the limits, if they are finite.
    """
    plain = paired_runs(a, b)
    edge = expected.nearest(plain.difference)
    sd = _unit_sd(plain.low, plain.high, plain.units)
    moved = {key: value + edge for key, value in a.items()}
    if isfinite(limits[0]):
        plain = paired_runs(a, b, limits=limits)
        p = paired_runs(moved, b, limits=(limits[0] - edge, limits[1] - edge)).p
    else:
        p = paired_runs(moved, b).p
    if plain.low is None or plain.high is None:
        return Estimate(plain.difference, None, None, None, plain.n, plain.units, "runs", note=plain.note)
    return Estimate(plain.difference, plain.low, plain.high, p, plain.n, plain.units, "runs", sd, note=plain.note)


def _unit_sd(low: float | None, high: float | None, units: int) -> float | None:
    """Of the units' numbers, from Student's interval; None where they agree exactly."""
    return None if low is None or high is None else (high - low) / 2 * sqrt(units) / critical_value(0.95, units - 1)
