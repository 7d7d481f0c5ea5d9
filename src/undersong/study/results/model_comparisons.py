"""Comparisons of adapters with their base over prompts, and marginal effects of axis and modality."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, NamedTuple

from undersong.evaluation.rates import Metric, attack_metric
from undersong.evaluation.verdicts import VerdictPairs, pair_verdicts
from undersong.results.schema import RunResult, identity_hash
from undersong.results.schema_base import modality_label
from undersong.results.schema_comparisons import ComparisonRecord, ComparisonSide, DiscordantPrompts, MarginalEffect
from undersong.statistics.paired import compare_paired
from undersong.statistics.runs import paired_runs
from undersong.study.results.comparisons import (
    harm_metric,
    harmful_prompts,
    paired_differences,
    side_identity,
    tuned_runs,
)
from undersong.study.results.contrasts import RatesByRun
from undersong.types import UndersongError, Verdict


class ModelQuestion(NamedTuple):
    """A question about one adapter, for people, and its two sides; the difference is b - a."""

    text: str
    a: ComparisonSide
    b: ComparisonSide


def base_question(run: RunResult, modality: str, system: str) -> ModelQuestion:
    """Ask whether one adapter is less safe than its base."""
    text = f"Is {run.arm} (seed {run.seed}) less safe than its base ({modality_label(modality)} requests)?"
    base = ComparisonSide(arm="base", system=system, label="base")
    return ModelQuestion(text, base, _run_side(run, system, run.arm))


def system_prompt_question(run: RunResult, modality: str, plain: str, defense_system: str) -> ModelQuestion:
    """Ask whether one adapter is safer under the system prompt that is a defense than under the plain one.

    Args:
        run: The tuned run.
        modality: Modality of the prompts.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt that is a defense.
    """
    text = f"Does the system prompt make {run.arm} (seed {run.seed}) safer ({modality_label(modality)} requests)?"
    return ModelQuestion(text, _run_side(run, plain, plain), _run_side(run, defense_system, defense_system))


def model_question_id(run: RunResult, question: ModelQuestion, set_name: str, modality: str, metric: Metric) -> str:
    """Identify a question about one adapter.

    Args:
        run: The tuned run.
        question: The question, whose sides are the base and the run, or the run under two system prompts.
        set_name: Name of the harmful prompt set.
        modality: Modality of the prompts.
        metric: Metric of the rates.
    """
    sides = side_identity(question.a, question.b)
    return identity_hash(["model", *sides, set_name, modality, metric, run.model, run.seed, run.draw, run.step])


def _run_side(run: RunResult, system: str, label: str) -> ComparisonSide:
    return ComparisonSide(arm=run.arm, system=system, seed=run.seed, draw=run.draw, label=label)


def model_comparison(
    run: RunResult,
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    set_name: str,
    modality: str,
    system: str,
) -> ComparisonRecord:
    """Compare one adapter with its base on the same prompts, in one modality, clustered by behavior.

    Args:
        run: The tuned run; its rates are not read.
        before: Verdicts on the base.
        after: Verdicts on the run.
        set_name: Name of a harmful prompt set.
        modality: Modality of the prompts.
        system: Name of the system prompt.

    Raises:
        UndersongError: A prompt was given to one of the two only.
    """
    return _paired_comparison(run, before, after, base_question(run, modality, system), set_name, modality)


def system_prompt_comparison(
    run: RunResult, verdicts: Sequence[Verdict], set_name: str, modality: str, plain: str, defense_system: str
) -> ComparisonRecord:
    """Compare one adapter under the system prompt that is a defense with itself without it, on the same prompts.

    Args:
        run: The tuned run; its rates are not read.
        verdicts: Verdicts on the run, under both system prompts.
        set_name: Name of a harmful prompt set.
        modality: Modality of the prompts.
        plain: Name of the undefended system prompt.
        defense_system: Name of the system prompt that is a defense.

    Raises:
        UndersongError: A prompt was given under one of the two only.
    """
    question = system_prompt_question(run, modality, plain, defense_system)
    return _paired_comparison(run, verdicts, verdicts, question, set_name, modality)


def _paired_comparison(
    run: RunResult,
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    question: ModelQuestion,
    set_name: str,
    modality: str,
) -> ComparisonRecord:
    text, a, b = question
    verdict_pairs = pair_side_verdicts((a, b), before, after, set_name, modality)
    if unpaired := (*verdict_pairs.only_before, *verdict_pairs.only_after):
        unpaired_id = min(verdict.prompt_id for verdict in unpaired)
        raise UndersongError(
            f"Prompt {unpaired_id} of set {set_name} was evaluated for only one of "
            f"{'the base' if a.arm == 'base' else a.system} and {run.arm if a.arm == 'base' else b.system}; evaluate "
            "it for both."
        )
    rows = verdict_pairs.by_prompt
    outcomes = [
        [verdict is not None and verdict.verdict == "jailbreak" for verdict in side]
        for side in ([row[0] for row in rows], [row[1] for row in rows])
    ]
    paired = compare_paired(outcomes[0], outcomes[1], clusters=[cluster for _, _, cluster in rows])
    metric = attack_metric(after[0].judge)
    return ComparisonRecord(
        id=model_question_id(run, question, set_name, modality, metric),
        scope="model",
        question=text,
        a=a,
        b=b,
        prompt_set=set_name,
        modality=modality,
        step=run.step,
        metric=metric,
        model=run.model,
        n=paired.n,
        difference=paired.difference,
        low=paired.clustered_low,
        high=paired.clustered_high,
        p=paired.clustered_p,
        method=f"sign-flip over {paired.clusters} clusters; Newcombe interval at the clustered effective n",
        discordant=DiscordantPrompts(
            n_only_a=paired.b, n_only_b=paired.c, clusters=paired.clusters, mcnemar_p=paired.p
        ),
    )


def pair_side_verdicts(
    sides: tuple[ComparisonSide, ComparisonSide],
    before: Sequence[Verdict],
    after: Sequence[Verdict],
    set_name: str,
    modality: str,
) -> VerdictPairs:
    """Pair the verdicts of two sides on one prompt set, each under its system prompt.

    Args:
        sides: The sides, a and b.
        before: Verdicts of side a.
        after: Verdicts of side b.
        set_name: Name of the prompt set.
        modality: Modality of the prompts.
    """
    first, second = (
        [v for v in verdicts if (v.set, v.modality, v.system) == (set_name, modality, side.system)]
        for verdicts, side in zip((before, after), sides, strict=True)
    )
    return pair_verdicts(first, second)


def marginal_effects(runs: Sequence[RunResult], plain: str, last_step: int) -> list[MarginalEffect]:
    """Compute one entry per base, contrast and harmful set, at the last step, undefended, for spoken and typed prompts.

    `factor: axis` is closest minus distant on that axis, averaged over training modalities and fractions.
    `factor: modality` is training on audio minus training on text, averaged over axes, kinds and fractions. Contrasts
    whose sides a study does not have are left out.
    """
    tuned = tuned_runs(runs, last_step)
    bases = dict.fromkeys((run.model, run.base_seed) for run in tuned)
    return [
        _marginal_effect(contrast, name, modality, plain, last_step)
        for name, modality in harmful_prompts(tuned)
        for base in bases
        for contrast in _marginal_contrasts([run for run in tuned if (run.model, run.base_seed) == base])
    ]


@dataclass(frozen=True)
class MarginalContrast:
    """Two groups of runs of one base that differ in the level of one factor; the difference is b - a."""

    factor: Literal["axis", "modality"]
    level: str
    levels: tuple[str, str]  # of a, of b
    question: str
    a: list[RunResult]
    b: list[RunResult]


def _marginal_contrasts(base_runs: Sequence[RunResult]) -> Iterator[MarginalContrast]:
    for axis in sorted({str(run.axis) for run in base_runs}):
        distant, closest = (
            [run for run in base_runs if (run.axis, run.kind) == (axis, kind)] for kind in ("distant", "closest")
        )
        if distant and closest:
            question = f"closest minus distant, {axis} axis"
            yield MarginalContrast("axis", axis, ("distant", "closest"), question, distant, closest)
    text, audio = ([run for run in base_runs if run.train_modality == modality] for modality in ("text", "audio"))
    if text and audio:
        question = "trained on audio minus on text"
        yield MarginalContrast("modality", "audio", ("text", "audio"), question, text, audio)


def _marginal_effect(
    contrast: MarginalContrast, set_name: str, modality: str, plain: str, last_step: int
) -> MarginalEffect:
    rates_a, rates_b = (_mean_rates(side, set_name, modality, plain) for side in (contrast.a, contrast.b))
    difference, metric = paired_runs(rates_a, rates_b, limits=(-1.0, 1.0)), harm_metric(contrast.a)
    return MarginalEffect(
        id=identity_hash(["marginal", contrast.factor, contrast.level, set_name, modality, plain, metric]),
        model=contrast.a[0].model,
        base_seed=contrast.a[0].base_seed,
        factor=contrast.factor,
        level=contrast.level,
        a=contrast.levels[0],
        b=contrast.levels[1],
        question=contrast.question,
        prompt_set=set_name,
        modality=modality,
        system=plain,
        step=last_step,
        metric=metric,
        n=difference.n,
        n_arms=len({run.arm for run in contrast.a}),
        difference=difference.difference,
        low=difference.low,
        high=difference.high,
        method=difference.method,
        note=difference.note or None,
        estimates=paired_differences(difference),
    )


def _mean_rates(runs: Sequence[RunResult], set_name: str, modality: str, plain: str) -> RatesByRun:
    """(base, draw, seed) -> mean JSR over the arms of one side."""
    rates: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for run in runs:
        rate = run.find_rate(set_name, modality, plain)
        if rate is not None:
            rates[run.run_key].append(rate.rate)
    return {key: fmean(values) for key, values in rates.items()}
