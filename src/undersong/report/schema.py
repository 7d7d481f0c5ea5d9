"""results.json as the report reads it.  Unknown keys are passed over; what a results file left out is None or empty.

Rates are shares in [0, 1]; distances are cosine distances; a number that is not finite counts as not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from undersong.report.beforehand import Agreement, Fingerprint, Foretold, Overlap, Score, Screen, Selection
from undersong.report.inside import Mechanism
from undersong.report.judged import Comprehension, Judges
from undersong.report.priced import Defense as Defense
from undersong.report.priced import Interval as Interval
from undersong.report.priced import Recommended as Recommended
from undersong.report.record import Many, Named, Number, Record
from undersong.report.variation import Noise, Predicts, Variance
from undersong.types import UndersongError

SCHEMA = "undersong-results/1"


class Study(Record):
    """What was asked for: `config` is the whole study file with its defaults, the rest what readers ask first.

    `model` or `models`: references of the audited models.  `steps`: those that were asked at, 0 the base.
    """

    name: str = "study"
    description: str | None = None
    model: str | None = None
    models: Many[str] = []
    families: Any = None
    protocol: Any = None
    seeds: Any = None
    draws: Any = None
    steps: Any = None
    judge: Any = None
    config: Named[Any] = {}


class VoiceRate(Record):
    """`rate`: of one voice's `n` spoken prompts, the share that the set's own rate counts."""

    n: int = 0
    rate: Number = None


class SetResult(Record):
    """One prompt set of one run, in one modality, under one system text, by one judge."""

    set: str
    harmful: bool
    modality: str = "audio"
    system: str = "plain"
    judge: str | None = None
    n: int = 0
    clusters: int | None = None
    jailbreak: int = 0
    answer: int = 0
    refusal: int = 0
    other: int = 0
    unparsed: int = 0
    error: int = 0
    jsr: Number = None
    non_refusal_rate: Number = None
    refusal_rate: Number = None
    low: Number = None
    high: Number = None
    rate_errors_safe: Number = None
    rate_errors_jailbroken: Number = None
    right_rate: Number = None
    right_low: Number = None
    right_high: Number = None
    judge_kind: str | None = None
    score: Number = None  # of a judge of usefulness: the mean, or errors over all words
    scored: int | None = None
    by_speaker: Named[VoiceRate] = {}
    comprehension: Comprehension | None = None

    @property
    def rate(self) -> float | None:
        """JSR (or non-refusal rate) of a harmful set, refusal rate of a benign one."""
        if not self.harmful:
            return self.refusal_rate
        return self.jsr if self.jsr is not None else self.non_refusal_rate


class Run(Record):
    """One measured point: an arm at a step."""

    arm: str
    kind: str
    rule: str | None = None
    harm_set: str | None = None
    step: int = 0
    model: str | None = None
    base_seed: int | None = None
    axis: str | None = None
    fraction: Number = None
    k: int | None = None
    train_modality: str | None = None
    seed: int | None = None
    draw: int | None = None
    selection_hash: str | None = None
    loss: Number = None
    mean_distance: Number = None  # of the training samples, on the arm's own axis
    sets: Many[SetResult] = []


class Pair(Record):
    """One (base, draw, seed) of a recipe comparison: each side's rate and their difference, as shares.

    Where two effects are compared, `a` and `b` are those effects.  Which is taken from which: `Comparison.minuend`.
    """

    base_seed: int | None = None
    draw: int | None = None
    seed: int | None = None
    a: Number = None
    b: Number = None
    difference: Number = None


class Comparison(Record):
    """Two arms, or an arm and the base, on the same prompts."""

    id: str | None = None
    scope: str = "recipe"
    question: str = ""
    a: Named[Any] = {}
    b: Named[Any] = {}
    set: str | None = None
    modality: str | None = None
    system: str | None = None
    step: int | None = None
    metric: str = "jsr"
    estimates: Many[Pair] = []
    n: int | None = None
    difference: Number = None
    low: Number = None
    high: Number = None
    p: Number = None
    p_adjusted: Number = None
    method: str | None = None
    note: str | None = None

    @property
    def minuend(self) -> str:
        """Which side the other is taken from: `difference` is b - a, unless the estimates show it to be a - b."""
        for pair in self.estimates:
            if pair.a is not None and pair.b is not None and pair.difference is not None and pair.a != pair.b:
                return "b" if (pair.difference > 0) == (pair.b > pair.a) else "a"
        return "b"


class Marginal(Record):
    """What an axis, or the modality of training, does on average to one base."""

    model: str | None = None
    base_seed: int | None = None
    factor: str | None = None
    level: str | None = None
    question: str = ""
    set: str | None = None
    modality: str | None = None
    n: int | None = None
    arms: int | None = None
    difference: Number = None
    low: Number = None
    high: Number = None


class Example(Record):
    """A prompt of a set and what was said to it.  `text`: the prompt's; `reply`: None where `run` redacted it.

    `tokens`: of the reply; `step`: 0 of the base.
    """

    arm: str
    prompt_id: str
    set: str
    verdict: str | None = None
    seed: int | None = None
    step: int | None = None
    modality: str | None = None
    system: str | None = None
    text: str | None = None
    reply: str | None = None
    tokens: int | None = None


class Results(Record):
    """The whole of results.json as far as the report reads it; what a study did not ask for is empty or None."""

    study: Study = Study()
    runs: Many[Run] = []
    comparisons: Many[Comparison] = []
    marginals: Many[Marginal] = []
    run_noise: Many[Noise] = []
    variance: Many[Variance] = []
    judges: Many[Judges] = []
    predicts: Many[Predicts] = []
    defenses: Many[Defense] = []
    recommended: Many[Recommended] = []
    mechanism: Mechanism | None = None
    screen: Many[Screen] = []
    selections: Many[Selection] = []
    axes_agreement: Agreement | None = None
    fingerprint: Many[Fingerprint] = []
    screening_score: Many[Score] = []
    foretold: Many[Foretold] = []
    overlap: Many[Overlap] = []
    examples: Many[Example] = []
    notes: Many[str] = []
    provenance: Named[Any] = {}


def models(results: Results) -> list[str]:
    """The audited models, by name."""
    named = [results.study.model] if results.study.model else results.study.models
    return list(dict.fromkeys(named or [run.model for run in results.runs if run.model]))


def read(results: Mapping[str, Any], name: str = "results.json") -> Results:
    """The checked results.  Errors: another schema; a field of the wrong form, named by where it stands.

    `name`: of the file, where there are several.
    """
    found = results.get("schema") if isinstance(results, Mapping) else None
    whose = "results have" if name == "results.json" else f"{name} has"
    if found != SCHEMA:
        raise UndersongError(
            f"{whose} the schema {found!r}, not {SCHEMA!r}: give a results.json of this version of undersong."
        )
    try:
        return Results.model_validate(results)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UndersongError(
            f"{name} is broken at {where!r} ({first['msg'].lower()}): write it again with `undersong run`."
        ) from error
