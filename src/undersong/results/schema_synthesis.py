"""Records of synthesis.json: one contrast of several studies put together."""

from __future__ import annotations

from typing import Final, Literal

from undersong.evaluation.rates import Metric
from undersong.results.schema_base import Record
from undersong.results.schema_comparisons import MixedModelRecord, PairedRunDifference

SYNTHESIS_SCHEMA: Final = "undersong-synthesis/1"


class SynthesisEstimate(Record):
    """The contrast in one study and base: the mean over its runs, with the paired t interval of these runs alone."""

    study: str
    model: str
    prompt_set: str
    arms: list[str]  # averaged
    runs: int
    difference: float
    low: float | None = None
    high: float | None = None
    weight: float  # share of the mean
    differences: list[PairedRunDifference] = []


class HeterogeneityRecord(Record):
    """How much the true effects of units differ: Cochran's Q, their standard deviation, and I squared."""

    q: float
    df: int
    p: float
    tau: float
    i_squared: float


class SynthesisAnalysis(Record):
    """The contrast on prompts of one modality, over all studies; the difference is the first arm minus the second."""

    modality: str
    metric: Metric
    unit: Literal["base", "study"]
    units: int
    estimates: list[SynthesisEstimate]
    mean: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    prediction_low: float | None = None
    prediction_high: float | None = None
    heterogeneity: HeterogeneityRecord | None = None
    mixed_model: MixedModelRecord | None = None
    method: str
    notes: list[str] = []


class SynthesizedStudy(Record):
    """A study of the synthesis; `differences` says what its rates depend on and the first study's do not."""

    name: str
    models: list[str]
    judge: str
    steps: list[int]
    result_hash: str | None = None
    differences: list[str] = []


class Synthesis(Record):
    """All of synthesis.json."""

    schema_version: Literal["undersong-synthesis/1"] = SYNTHESIS_SCHEMA
    contrast: str
    question: str
    studies: list[SynthesizedStudy]
    analyses: list[SynthesisAnalysis]
    notes: list[str] = []
