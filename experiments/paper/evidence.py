"""Estimates out of results.json files: which runs, of which study, against which.

A run gives one number, its mean over the arms that a side takes; runs are paired by (base, draw, seed).  Two trained
arms are compared by a paired t test: where they do not differ, their paired differences scatter alike on both sides of
0, whatever the run noise.  A rate, a difference from a base and a margin have no such symmetry, so they are bounded for
any run noise (`undersong.statistics.run_bounds`).  Knows results; does not know what a paper says of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import isfinite, nan, sqrt
from pathlib import Path
from statistics import fmean
from typing import Literal

from experiments.paper.agreement import TOO_SHALLOW, Estimate, Expected
from undersong.mechanism.directions import early_and_late_thirds
from undersong.results import MechanismRecord, PromptSetRate, Results, RunResult, parse_results
from undersong.statistics import (
    RunBounds,
    RunKey,
    bound_change_from_base,
    bound_run_mean,
    paired_runs,
    prompt_interval,
    run_mean_p,
)
from undersong.statistics.rates import critical_value
from undersong.types import UndersongError

SHARES = (-1.0, 1.0)
OPEN = 0.5  # of a fact: neither shown nor shown not to be


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
    """The results that there are, by the name of their study; each is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[str, Results | None] = {}

    def results(self, where: Where, organism: str) -> Results | None:
        """None: the study has no results yet."""
        name = where.study(organism)
        if name not in self._read:
            file = self._folder / name / "results.json"
            self._read[name] = self._open(file, name) if file.is_file() else None
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
    """Runs of a study, and what they are asked.  `kind` base: the model before tuning.  `step` None: the last."""

    where: Where
    kind: str
    axes: tuple[str, ...] = ()  # none: all of the study
    trained: str = "audio"
    asked: str = "audio"
    system: str = "plain"
    set: str = "harm"
    fraction: float = 0.25
    step: int | None = None
    counted: Literal["jsr", "right", "refused"] = "jsr"  # right, refused: of a benign set

    def entries(self, evidence: Evidence, organism: str) -> dict[RunKey, list[PromptSetRate]]:
        """(base, draw, seed) -> the asked set of each arm; of a base, (base, 0, 0).  Empty: there are no such runs."""
        results = evidence.results(self.where, organism)
        if results is None:
            return {}
        step = self.step if self.step is not None else results.study.steps[-1]
        found: dict[RunKey, list[PromptSetRate]] = {}
        for run in results.runs:
            entry = run.find_rate(self.set, self.asked, self.system) if self._takes(run, step) else None
            if entry is not None:
                found.setdefault(run.run_key, []).append(entry)
        return found

    def _takes(self, run: RunResult, step: int) -> bool:
        if self.kind == "base":
            return run.kind == "base"
        place = (run.kind, run.train_modality, run.fraction, run.step)
        return place == (self.kind, self.trained, self.fraction, step) and (not self.axes or run.axis in self.axes)

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

        def bounds_at(confidence: float) -> RunBounds:
            if self.a is not None and self.a.kind != "base":
                return bound_run_mean(values, values, confidence, SHARES)
            ends = {key: _ends_at(self.b, mine, confidence) for key, mine in after.items()}
            was = {key: _ends_at(self.a, before[key], confidence) if self.a else (0.0, 0.0) for key in after}
            return bound_change_from_base(was, ends, confidence)

        plain = paired_runs(dict.fromkeys(values, 0.0), values)
        bounds = bounds_at(0.975)
        if bounds.units < 2:
            return Estimate(plain.difference, None, None, None, plain.n, plain.units, "runs", note=plain.note)
        edges = [expected.nearest(plain.difference)]
        if expected.side == "within" and expected.holds(plain.difference):
            edges = [-expected.edge, expected.edge]
        p = max(run_mean_p(bounds_at, edge) for edge in edges)
        sd = _unit_sd(plain.low, plain.high, plain.units)
        return Estimate(plain.difference, bounds.low, bounds.high, p, plain.n, plain.units, "runs", sd)


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


@dataclass(frozen=True)
class LateGap:
    """Change of the refusal gap in the last third of layers minus that in the first third, by run.

    The unit is half the distance between harmful and benign means in the sets that the base's direction is fitted on.
    Below 0 the late gap falls more than the early one, which is what *late* suppression means. A decoder of fewer than
    6 layers has no such contrast, and the estimate says so.
    """

    where: Where
    kind: str = "closest"
    trained: str = "audio"
    probed: str = "audio"

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: nothing was probed."""
        results = evidence.results(self.where, organism)
        if results is None or results.mechanism is None:
            return None
        if early_and_late_thirds(results.mechanism.n_layers) is None:
            return Estimate(nan, None, None, None, 0, 0, "runs", note=TOO_SHALLOW)
        runs = {
            (run.model, run.arm, run.seed): run.run_key
            for run in results.runs
            if (run.kind, run.train_modality) == (self.kind, self.trained)
        }
        changes: dict[RunKey, list[tuple[float, float]]] = {}
        for late in results.mechanism.late_gap_changes:
            key = runs.get((late.model, late.arm, late.seed))
            if key is None or late.modality != self.probed:
                continue
            if late.late_minus_early is not None and late.gap_change is not None:
                changes.setdefault(key, []).append((late.late_minus_early, late.gap_change))
        if not changes:
            return None
        found, falls = (
            over_runs(
                dict.fromkeys(changes, 0.0),
                {key: fmean(pair[part] for pair in mine) for key, mine in changes.items()},
                expected,
                (-float("inf"), float("inf")),
            )
            for part in (0, 1)
        )
        if expected.side != "below" or found.value >= 0 or found.p is None:
            return found
        # Suppression that is late needs a late gap that falls too: both tests must hold, so the larger p value counts.
        return replace(found, p=1.0 if falls.p is None or falls.value >= 0 else max(found.p, falls.p))


@dataclass(frozen=True)
class Fact:
    """What is so or not, without noise: 1 where it is, 0 where it is not, and between them where it is open."""

    where: Where
    what: str  # encoder: equal to the bit; dissociated: harm still recognised and refused less, by the study's own rule

    def estimate(self, evidence: Evidence, organism: str, expected: Expected) -> Estimate | None:
        """None: nothing was probed."""
        results = evidence.results(self.where, organism)
        if results is None or results.mechanism is None:
            return None
        found, runs = _encoder(results.mechanism) if self.what == "encoder" else _dissociated(results.mechanism)
        value, known = (OPEN, None) if found is None else (float(found), float(found))
        return Estimate(value, known, known, None, runs, runs, "all")


def _encoder(mechanism: MechanismRecord) -> tuple[bool | None, int]:
    """Parameters, buffers, what the encoder gives and what the decoder gets: all the same before and after every one
    of so many trainings."""
    facts = mechanism.encoder_unchanged
    if facts is None:  # nothing was trained
        return None, 0
    differences = facts.output_max_abs_difference, facts.input_max_abs_difference
    return bool(facts.parameters_equal and facts.buffers_equal and not any(differences)), facts.trainings


def _dissociated(mechanism: MechanismRecord) -> tuple[bool | None, int]:
    """Of spoken prompts after so many runs on the closest speech: in all bases; not, where harm is shown to be lost in
    one."""
    place = ("closest", "audio", "audio")
    mine = [one for one in mechanism.harm_recognition if (one.kind, one.train_modality, one.modality) == place]
    runs = sum(one.n for one in mine)
    if mine and all(one.dissociated for one in mine):
        return True, runs
    return (False if any(one.outcome == "lost" for one in mine) else None), runs
