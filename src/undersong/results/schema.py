"""The schema of results.json: study, runs, comparisons, examples, and the parser that validates a file.

Ignores unknown keys; non-finite numbers are read as None.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from undersong.results.schema_base import DictField, ListField, OptionalFloat, Record
from undersong.results.schema_mechanism import MechanismRecord
from undersong.results.schema_outcomes import (
    ComprehensionRecord,
    DefenseRecommendation,
    DefenseRecord,
    JudgeAgreement,
    ProximityVsJsrRecord,
    RunNoiseRecord,
    VarianceRecord,
)
from undersong.results.schema_screening import (
    AxisAgreementRecord,
    AxisFingerprintRecord,
    AxisScreening,
    CorpusOverlap,
    ScoreVsJsrRecord,
    ScreeningScoreRecord,
    SelectionRecord,
)
from undersong.types import UndersongError

SCHEMA = "undersong-results/1"


class StudyRecord(Record):
    """What was asked for: `config` is the whole study file with its defaults, the rest what readers ask first.

    `model` or `models`: references of the audited models.  `steps`: those that were asked at, 0 the base.
    """

    name: str = "study"
    description: str | None = None
    model: str | None = None
    models: ListField[str] = []
    families: Any = None
    protocol: Any = None
    seeds: Any = None
    draws: Any = None
    steps: Any = None
    judge: Any = None
    config: DictField[Any] = {}


class VoiceRate(Record):
    """`rate`: of one voice's `n` spoken prompts, the share that the set's own rate counts."""

    n: int = 0
    rate: OptionalFloat = None


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
    jsr: OptionalFloat = None
    non_refusal_rate: OptionalFloat = None
    refusal_rate: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    rate_errors_safe: OptionalFloat = None
    rate_errors_jailbroken: OptionalFloat = None
    right_rate: OptionalFloat = None
    right_low: OptionalFloat = None
    right_high: OptionalFloat = None
    judge_kind: str | None = None
    score: OptionalFloat = None  # of a judge of usefulness: the mean, or errors over all words
    scored: int | None = None
    by_speaker: DictField[VoiceRate] = {}
    comprehension: ComprehensionRecord | None = None

    @property
    def rate(self) -> float | None:
        """JSR (or non-refusal rate) of a harmful set, refusal rate of a benign one."""
        if not self.harmful:
            return self.refusal_rate
        return self.jsr if self.jsr is not None else self.non_refusal_rate


class RunResult(Record):
    """One measured point: an arm at a step."""

    arm: str
    kind: str
    rule: str | None = None
    harm_set: str | None = None
    step: int = 0
    model: str | None = None
    base_seed: int | None = None
    axis: str | None = None
    fraction: OptionalFloat = None
    k: int | None = None
    train_modality: str | None = None
    seed: int | None = None
    draw: int | None = None
    selection_hash: str | None = None
    loss: OptionalFloat = None
    mean_distance: OptionalFloat = None  # of the training samples, on the arm's own axis
    sets: ListField[SetResult] = []


class PairedRunDifference(Record):
    """One (base, draw, seed) of a recipe comparison: each side's rate and their difference, as shares.

    Where two effects are compared, `a` and `b` are those effects.  Which is taken from which: `Comparison.minuend`.
    """

    base_seed: int | None = None
    draw: int | None = None
    seed: int | None = None
    a: OptionalFloat = None
    b: OptionalFloat = None
    difference: OptionalFloat = None


class ComparisonRecord(Record):
    """Two arms, or an arm and the base, on the same prompts."""

    id: str | None = None
    scope: str = "recipe"
    question: str = ""
    a: DictField[Any] = {}
    b: DictField[Any] = {}
    set: str | None = None
    modality: str | None = None
    system: str | None = None
    step: int | None = None
    metric: str = "jsr"
    estimates: ListField[PairedRunDifference] = []
    n: int | None = None
    difference: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    p: OptionalFloat = None
    p_adjusted: OptionalFloat = None
    method: str | None = None
    note: str | None = None

    @property
    def minuend(self) -> str:
        """Which side the other is taken from: `difference` is b - a, unless the estimates show it to be a - b."""
        for pair in self.estimates:
            if pair.a is not None and pair.b is not None and pair.difference is not None and pair.a != pair.b:
                return "b" if (pair.difference > 0) == (pair.b > pair.a) else "a"
        return "b"


class MarginalEffect(Record):
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
    difference: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None


class ReplyExample(Record):
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

    study: StudyRecord = StudyRecord()
    runs: ListField[RunResult] = []
    comparisons: ListField[ComparisonRecord] = []
    marginals: ListField[MarginalEffect] = []
    run_noise: ListField[RunNoiseRecord] = []
    variance: ListField[VarianceRecord] = []
    judges: ListField[JudgeAgreement] = []
    predicts: ListField[ProximityVsJsrRecord] = []
    defenses: ListField[DefenseRecord] = []
    recommended: ListField[DefenseRecommendation] = []
    mechanism: MechanismRecord | None = None
    screen: ListField[AxisScreening] = []
    selections: ListField[SelectionRecord] = []
    axes_agreement: AxisAgreementRecord | None = None
    fingerprint: ListField[AxisFingerprintRecord] = []
    screening_score: ListField[ScreeningScoreRecord] = []
    foretold: ListField[ScoreVsJsrRecord] = []
    overlap: ListField[CorpusOverlap] = []
    examples: ListField[ReplyExample] = []
    notes: ListField[str] = []
    provenance: DictField[Any] = {}


def model_names(results: Results) -> list[str]:
    """The audited models, by name."""
    names = [results.study.model] if results.study.model else results.study.models
    return list(dict.fromkeys(names or [run.model for run in results.runs if run.model]))


def parse_results(results: Mapping[str, Any], file_name: str = "results.json") -> Results:
    """The checked results.  Errors: another schema; a field of the wrong form, named by where it stands.

    `name`: of the file, where there are several.
    """
    schema = results.get("schema") if isinstance(results, Mapping) else None
    subject = "results have" if file_name == "results.json" else f"{file_name} has"
    if schema != SCHEMA:
        raise UndersongError(
            f"{subject} the schema {schema!r}, not {SCHEMA!r}: give a results.json of this version of undersong."
        )
    try:
        return Results.model_validate(results)
    except ValidationError as error:
        first_error = error.errors()[0]
        location = ".".join(str(part) for part in first_error["loc"])
        raise UndersongError(
            f"{file_name} is broken at {location!r} ({first_error['msg'].lower()}): write it again with `undersong run`."
        ) from error
