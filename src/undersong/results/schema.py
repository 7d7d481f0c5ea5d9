"""Schema of results.json: the records of study, runs and provenance, and the parser. Writers and readers use the same
records, and unknown keys are an error in both directions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Final, Literal

from pydantic import Field, ValidationError, model_validator

from undersong.escaping import quote, shorten
from undersong.evaluation.rates import VerdictRate
from undersong.results.schema_base import OmitsUnset, Record, ValueWithInterval
from undersong.results.schema_comparisons import (
    ComparisonRecord,
    DoseComparisonRecord,
    DoseRecord,
    MarginalEffect,
    MarginComparisonRecord,
)
from undersong.results.schema_defenses import ChosenSetting, DefenseRecommendation, DefenseRecord, TargetLosses
from undersong.results.schema_mechanism import MechanismRecord
from undersong.results.schema_outcomes import (
    ComprehensionRecord,
    JudgeAgreement,
    ProximityVsJsrRecord,
    RunNoiseRecord,
    SequentialRecord,
    VarianceRecord,
)
from undersong.results.schema_registration import RegistrationRecord
from undersong.results.schema_screening import (
    AxisAgreementRecord,
    AxisFingerprintRecord,
    AxisScreening,
    CorpusOverlap,
    ScoreVsJsrRecord,
    ScreeningScoreRecord,
    SelectionRecord,
    TargetReplies,
)
from undersong.settings.judge_names import Criterion
from undersong.store.hashing import canonical_json
from undersong.types import UndersongError

SCHEMA: Final = "undersong-results/2"


class StudyRecord(Record):
    """Settings of the study: `config` is the study file with all defaults, the other keys repeat the main settings."""

    name: str
    description: str | None = None
    models: list[str]  # references of the audited models
    protocol: str
    seeds: list[int]
    draws: list[int]
    steps: list[int]  # those that were measured; 0 is the base
    judge: str  # whose rates these are
    judge_criterion: Criterion
    undefended_system: str  # name of a system prompt
    system_defense: str | None = None
    primary_questions: list[str] = []
    primary_declared: bool = False  # False: a default stands in
    config: dict[str, Any] = {}


class PromptSetRate(VerdictRate):
    """Rate of one prompt set in one run, with its comprehension if that was measured."""

    comprehension: ComprehensionRecord | None = None


class RunResult(Record):
    """One measured point: an arm at a step. The base has no axis, fraction, modality, seed or draw."""

    arm: str  # `base` or AXIS/KIND[/FRACTION]/MODALITY
    model: str
    base_seed: int  # the base's place among the study's models
    axis: str | None = None
    kind: str
    fraction: float | None = None
    rule: str | None = None  # selection rule, if kind and fraction do not define it
    harm_set: str | None = None  # that closeness is to
    k: int | None = None  # training samples
    train_modality: str | None = None
    seed: int | None = None
    draw: int | None = None
    step: int
    selection_hash: str | None = None
    loss: float | None = None
    validation_loss: float | None = None
    mean_distance: float | None = None  # of the training samples, on the arm's own axis
    rates: list[PromptSetRate] = []

    @property
    def run_key(self) -> tuple[int, int, int]:
        """(base, draw, seed), by which runs are paired; 0 where the base has none."""
        return self.base_seed, self.draw or 0, self.seed or 0

    def find_rate(self, prompt_set: str, modality: str, system: str) -> PromptSetRate | None:
        """Return the rate on a prompt set, or None if it was not measured."""
        key = (prompt_set, modality, system)
        return next((rate for rate in self.rates if (rate.prompt_set, rate.modality, rate.system) == key), None)


class DefendedRun(RunResult):
    """One run of an arm under a defense."""

    defense: str
    changes: list[str] = []
    retuned: bool = False  # tuned once more afterwards
    target_losses: TargetLosses | None = None
    retention: float | None = None  # share of what the tuning taught that is left
    retention_known: bool = True
    chosen_setting: ChosenSetting | None = None
    stopped_at_step: int | None = None  # by the canary
    chosen_text: str | None = None  # for people


class ReplyExample(OmitsUnset):
    """A prompt of a set and the reply to it; the reply is None if it was redacted."""

    OMITTED_IF_NONE: ClassVar[tuple[str, ...]] = ("model",)

    model: str | None = None  # in a study of several models
    arm: str
    seed: int | None = None
    step: int
    prompt_set: str
    modality: str
    system: str
    prompt_id: str
    prompt_text: str | None = None
    verdict: str
    reply: str | None = None
    tokens: int | None = None


class ModelFacts(Record):
    """The family of a model, how it takes a system prompt, and how often its encoder ran."""

    family: str | None = None
    system_text: str | None = None
    revision: str | None = None
    encoder_passes: int = 0


class DefenseCpuSeconds(Record):
    """CPU seconds of one run of a defense: for making it, and for generating its replies."""

    training: ValueWithInterval
    generation: ValueWithInterval


class Provenance(Record):
    """Provenance of the results; the only part that differs between machines."""

    result_hash: str
    undersong: str
    store: str
    corpora: list[str] = []
    device: str
    dtype: str | None = None
    attention: str | None = None
    quantize: int | None = None
    model_facts: dict[str, ModelFacts] = {}
    artifacts: dict[str, int] = {}
    run_adapters: list[str | None] = []  # hash of the adapter of each of `runs`, then of `defended_runs`
    cpu_seconds_by_stage: dict[str, float] = {}
    cpu_seconds_by_defense: dict[str, DefenseCpuSeconds] = {}
    cpu_seconds_this_run: float | None = None
    files: dict[str, str] = {}  # SHA-256 of each table beside results.json
    created: str
    packages: dict[str, str | None] = {}
    python: str | None = None
    platform: str | None = None
    registration: RegistrationRecord | None = None


class Results(OmitsUnset):
    """All of results.json; parts that a study did not request are empty or None."""

    OMITTED_IF_NONE: ClassVar[tuple[str, ...]] = ("sequential",)

    schema_version: Literal["undersong-results/2"] = Field(alias="schema")
    study: StudyRecord
    runs: list[RunResult] = []
    defended_runs: list[DefendedRun] = []
    comparisons: list[ComparisonRecord] = []
    margin_comparisons: list[MarginComparisonRecord] = []
    dose_response: list[DoseRecord] = []
    dose_comparisons: list[DoseComparisonRecord] = []
    marginal_effects: list[MarginalEffect] = []
    judge_agreement: list[JudgeAgreement] = []
    proximity_vs_jsr: list[ProximityVsJsrRecord] = []
    sequential: SequentialRecord | None = None
    run_noise: list[RunNoiseRecord] = []
    variance_components: list[VarianceRecord] = []
    defense_tradeoffs: list[DefenseRecord] = []
    recommendations: list[DefenseRecommendation] = []
    mechanism: MechanismRecord | None = None
    target_replies: TargetReplies | None = None
    screening: list[AxisScreening] = []
    selections: list[SelectionRecord] = []
    corpus_overlap: list[CorpusOverlap] = []
    screening_scores: list[ScreeningScoreRecord] = []
    score_vs_jsr: list[ScoreVsJsrRecord] = []
    axis_fingerprints: list[AxisFingerprintRecord] = []
    axis_agreement: AxisAgreementRecord | None = None
    examples: list[ReplyExample] = []
    notes: list[str] = []
    provenance: Provenance | None = None

    @model_validator(mode="after")
    def _check_comparisons(self) -> Results:
        """Ids are unique, and every side is an arm of the results."""
        comparisons = [*self.comparisons, *self.margin_comparisons, *self.dose_comparisons]
        ids = [comparison.id for comparison in comparisons]
        if duplicates := [id for id in dict.fromkeys(ids) if ids.count(id) > 1]:
            raise ValueError(f"two comparisons have the id {duplicates[0]}")
        arms = {run.arm for run in self.runs}
        for comparison in comparisons:
            for side in (comparison.a, comparison.b):
                for arm in filter(None, (side.arm, side.minus_arm)):
                    if arm not in arms:
                        raise ValueError(f"comparison {comparison.id} names the arm {arm!r}, of which there is no run")
        return self

    @property
    def content(self) -> dict[str, Any]:
        """The JSON object that results.json holds."""
        return self.model_dump(mode="json", by_alias=True)


def identity_hash(identity: Iterable[Any]) -> str:
    """Return 12 hex digits of the SHA-256 of the fields that identify a comparison.

    The hash is equal in all studies that make this comparison.
    """
    return hashlib.sha256(canonical_json(list(identity)).encode()).hexdigest()[:12]


def result_hash(results: Results) -> str:
    """SHA-256 of the canonical results without provenance (and so without times) and without shown replies.

    Replies to harmful prompts are in the results only if the user asked for them; the hash is the same either way. So
    it is whether or not the shown replies name their models.
    """
    content = {key: value for key, value in results.content.items() if key != "provenance"}
    benign_sets = benign_prompt_sets(results)
    content["examples"] = [
        {
            key: None if key == "reply" and example["prompt_set"] not in benign_sets else value
            for key, value in example.items()
            if key != "model"
        }
        for example in content["examples"]
    ]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def benign_prompt_sets(results: Results) -> set[str]:
    """The prompt sets that have a rate on benign prompts; replies to all others are redacted by default."""
    return {rate.prompt_set for run in results.runs for rate in run.rates if not rate.harmful}


def model_names(results: Results) -> list[str]:
    """The audited models, by name."""
    return list(dict.fromkeys(results.study.models or [run.model for run in results.runs]))


def parse_results(results: Mapping[str, Any], file_name: str = "results.json") -> Results:
    """Check and parse the content of a results.json.

    Args:
        results: The JSON object.
        file_name: Name of the file in error messages, if there are several.

    Raises:
        UndersongError: Another schema version, an unknown key, or a field that is missing or has the wrong type; the
            message names its location.
    """
    schema = results.get("schema") if isinstance(results, Mapping) else None
    subject = "results have" if file_name == "results.json" else f"{file_name} has"
    if schema != SCHEMA:
        raise UndersongError(
            f"{subject} the schema {quote(schema)}, not {SCHEMA!r}: give a results.json of this version of undersong."
        )
    try:
        return Results.model_validate(results)
    except ValidationError as error:
        first_error = error.errors()[0]
        location = shorten(".".join(str(part) for part in first_error["loc"])) or "its records"
        raise UndersongError(
            f"{file_name} is broken at {location!r} ({first_error['msg'].lower()}): write it again with "
            "`undersong run`."
        ) from error
