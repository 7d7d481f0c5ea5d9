"""Differences of two arms run by run, read from results.json: what a synthesis of studies is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.results.schema import DefendedRun, Results, RunResult
from undersong.study.results.comparability import as_mapping
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

DEFAULT_CONTRAST = "closest-base"
DEFENSE_PREFIX = "defense:"
QUESTIONS = {
    "closest-base": "How much does training on the closest data raise the rate over the base?",
    "random-base": "How much does training on random data raise the rate over the base?",
    "distant-base": "How much does training on the most distant data raise the rate over the base?",
    "closest-random": "How much more does training on the closest data raise the rate than on random data?",
    "closest-distant": "How much more does training on the closest data raise the rate than on the most distant data?",
}
SYSTEM_PROMPT_DEFENSE = "system prompt"  # name of `system_defense` in the table of defenses


@dataclass(frozen=True)
class ArmFilter:
    """Arms that a contrast is limited to; None takes all.

    `mix_modalities` says that arms trained on speech and on text may be averaged.
    """

    axis: str | None = None
    fraction: float | None = None
    train_modality: str | None = None
    mix_modalities: bool = False

    def matches(self, run: RunResult) -> bool:
        """Return True if the run is of such an arm."""
        wanted = ((self.axis, run.axis), (self.fraction, run.fraction), (self.train_modality, run.train_modality))
        return all(value is None or value == actual for value, actual in wanted)


@dataclass(frozen=True)
class CellDifference:
    """Difference of two runs of one base that have axis, fraction, training modality, draw and seed in common.

    `trainings` identifies the trainings that it rests on, each by all names that it is known by.
    """

    model: str
    arms: str
    draw: int
    seed: int
    a: float
    b: float
    trainings: tuple[frozenset[Any], ...]


def check_contrast(contrast: str) -> str:
    """Return the question of a contrast.

    Raises:
        UndersongError: There is no such contrast.
    """
    if contrast in QUESTIONS:
        return QUESTIONS[contrast]
    if contrast.startswith(DEFENSE_PREFIX) and (name := contrast.removeprefix(DEFENSE_PREFIX)):
        return f"How much does the defense “{name}” change the rate after training on the closest data?"
    names = [*QUESTIONS, f"{DEFENSE_PREFIX}NAME"]
    fix = did_you_mean(contrast, names) or f"; take one of {', '.join(names)}."
    raise UndersongError(f"There is no contrast {contrast!r}{fix}")


def default_prompt_set(results: Results) -> str | None:
    """Return the harmful set `harm`, or else the first that was measured; None if none was."""
    sets = harmful_sets(results)
    return "harm" if "harm" in sets else next(iter(sets), None)


def harmful_sets(results: Results) -> list[str]:
    """Names of the harmful prompt sets that were measured."""
    return list(dict.fromkeys(rate.prompt_set for run in results.runs for rate in run.rates if rate.harmful))


def cell_differences(
    results: Results, contrast: str, arms: ArmFilter, prompt_set: str, modality: str
) -> list[CellDifference]:
    """Return the differences of a contrast at the study's last step, b - a; empty if the study does not have it.

    Args:
        results: Results of the study.
        contrast: Name of the contrast.
        arms: Arms that it is limited to.
        prompt_set: The harmful set.
        modality: Modality of the prompts.

    Raises:
        UndersongError: A run has no partner of the other arm at its draw and seed.
    """
    names = _training_names(results)
    system, last_step = results.study.undefended_system, _last_step(results)

    def rates(runs: Iterable[RunResult], system: str) -> Iterator[tuple[RunResult, float]]:
        for run in runs:
            if (rate := run.find_rate(prompt_set, modality, system)) is not None:
                yield run, rate.rate

    def arm_rates(kind: str) -> list[tuple[RunResult, float]]:
        selected = (run for run in results.runs if _is_plain_arm(run, kind, last_step) and arms.matches(run))
        return list(rates(selected, system))

    def pair(
        first: Sequence[tuple[RunResult, float]], second: Sequence[tuple[RunResult, float]]
    ) -> list[CellDifference]:
        partners = {_cell(run): (run, rate) for run, rate in first}
        designs = {cell[:-2] for cell in partners}
        matched = [(run, rate) for run, rate in second if _cell(run)[:-2] in designs]
        if lone := next((run for run, _ in matched if _cell(run) not in partners), None):
            raise UndersongError(
                f"{results.study.name} has no partner of {lone.arm} at draw {lone.draw}, seed {lone.seed} for "
                f"{contrast}; run it, or take another contrast."
            )
        return [_difference(*partners[_cell(run)], run, rate, names) for run, rate in matched]

    if contrast.startswith(DEFENSE_PREFIX):
        defended = _defended_rates(results, contrast.removeprefix(DEFENSE_PREFIX), rates)
        return pair(arm_rates("closest"), [(run, rate) for run, rate in defended if arms.matches(run)])
    kind, _, other_kind = contrast.partition("-")
    if other_kind != "base":
        return pair(arm_rates(other_kind), arm_rates(kind))
    bases = {run.model: (run, rate) for run, rate in rates((r for r in results.runs if r.kind == "base"), system)}
    return [_difference(*bases[run.model], run, rate, names) for run, rate in arm_rates(kind) if run.model in bases]


def contrast_train_modalities(results: Results, contrast: str, arms: ArmFilter) -> set[str]:
    """What the arms of a contrast were trained on: audio, text or both."""
    kind = "closest" if contrast.startswith(DEFENSE_PREFIX) else contrast.partition("-")[0]
    last_step = _last_step(results)
    return {
        run.train_modality
        for run in results.runs
        if run.train_modality is not None and _is_plain_arm(run, kind, last_step) and arms.matches(run)
    }


def _last_step(results: Results) -> int:
    return results.study.steps[-1] if results.study.steps else -1  # then no arm is at it


def _is_plain_arm(run: RunResult, kind: str, step: int) -> bool:
    return run.kind == kind and run.rule is None and run.step == step


def _cell(run: RunResult) -> tuple[Any, ...]:
    return run.model, run.axis, run.fraction, run.train_modality, run.draw, run.seed


def _difference(
    a_run: RunResult, a: float, b_run: RunResult, b: float, names: Callable[[RunResult], frozenset[Any]]
) -> CellDifference:
    trainings = tuple(names(run) for run in (a_run, b_run) if run.kind != "base")
    amount = "" if b_run.fraction is None else f" at {b_run.fraction:g}"
    label = f"{b_run.axis}{amount}, trained on {b_run.train_modality}"
    return CellDifference(b_run.model, label, b_run.draw or 0, b_run.seed or 0, a, b, trainings)


def _defended_rates(
    results: Results, name: str, rates: Callable[[Iterable[RunResult], str], Iterator[tuple[RunResult, float]]]
) -> list[tuple[RunResult, float]]:
    """Rates of the closest arms under a defense; under the study's system prompt defense they are in the plain runs."""
    study, last_step = results.study, _last_step(results)
    if name == SYSTEM_PROMPT_DEFENSE and study.system_defense is not None:
        closest = (run for run in results.runs if _is_plain_arm(run, "closest", last_step))
        return list(rates(closest, study.system_defense))
    settings = as_mapping(as_mapping(study.config.get("defenses")).get(name))
    runs = [run for run in results.defended_runs if (run.defense, run.retuned, run.step) == (name, False, last_step)]
    return list(rates(runs, settings.get("system") or study.undefended_system))


def _training_names(results: Results) -> Callable[[RunResult], frozenset[Any]]:
    """Return a function that names the training of a run: by its adapter, and by what it trained on and its loss.

    Results of earlier versions do not hold the adapters. Two trainings that have model, samples, seed and loss in
    common, to the last digit, are one.
    """
    adapters = results.provenance.run_adapters if results.provenance is not None else []
    runs = [*results.runs, *results.defended_runs]
    adapter_of = {id(run): adapter for run, adapter in zip(runs, adapters)}

    def names(run: RunResult) -> frozenset[Any]:
        defense = run.defense if isinstance(run, DefendedRun) else None
        identity: set[Any] = {(run.arm, run.model, run.draw, run.seed, defense, id(results))}
        if adapter := adapter_of.get(id(run)):
            identity.add((adapter, run.step, defense))
        if run.selection_hash is not None and run.loss is not None:
            facts = (run.model, run.train_modality, run.selection_hash, run.seed, run.step, run.loss, defense)
            identity.add(facts)
        return frozenset(identity)

    return names
