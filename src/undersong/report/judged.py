"""How far judges agree, and what was comprehended, as the report reads it."""

from __future__ import annotations

from undersong.results.schema_base import ListField, OptionalFloat, Record
from undersong.results.schema_screening import ValueWithInterval


class JudgeDisagreement(Record):
    """One reply that two judges count differently."""

    arm: str
    prompt_id: str
    seed: int | None = None
    step: int | None = None
    modality: str | None = None
    system: str | None = None
    a: str = ""
    b: str = ""


class JudgeAgreement(Record):
    """How far judge `b` agrees with `a`, whose the rates are, on what they count."""

    a: str
    b: str
    set: str | None = None
    counted: str | None = None
    n: int = 0
    left_out: int = 0  # replies without a verdict, not among the n
    both: int = 0
    only_a: int = 0
    only_b: int = 0
    neither: int = 0
    kappa: ValueWithInterval | None = None
    disagreements: ListField[JudgeDisagreement] = []  # the first of them


class ComprehensionRate(Record):
    """Of some prompts; `chance`: what replies about nothing would have; `refused`: of repetitions."""

    n: int = 0
    rate: OptionalFloat = None
    low: OptionalFloat = None
    high: OptionalFloat = None
    chance: OptionalFloat = None
    auc: OptionalFloat = None
    refused: int = 0


class ComprehensionRecord(Record):
    """Was a harmful set heard (None: typed), and what are the non-refusals about (None: there are none)?"""

    heard: ComprehensionRate | None = None
    about: ComprehensionRate | None = None
    comprehended: ComprehensionRate | None = None
    of_non_refusals: ComprehensionRate | None = None
