"""Records of a registration: registration.json, and what results.json says about it."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Literal

from undersong.results.schema_base import Record
from undersong.store.hashing import canonical_json

REGISTRATION_SCHEMA: Final = "undersong-registration/1"


class DecisionRules(Record):
    """Rules by which questions are decided; raise `version` if a change of the code changes decisions."""

    version: int = 1
    undersong: str
    confidence: float = 0.95
    significance: float = 0.05
    correction: str = (
        "Holm's method over the primary comparisons, over the exploratory ones of recipes, and over those of models"
    )
    recipe_test: str = "paired t over the outermost of base, draw and seed that varies"
    base_test: str = "bound for any run noise over the same units"
    model_test: str = "sign-flip over clusters of prompts"


class RegisteredQuestion(Record):
    """A comparison that the study will make. Of its `answers`, the verdicts of its runs, the store held `known`."""

    id: str  # as in `comparisons`
    scope: Literal["recipe", "model"]
    family: Literal["primary", "exploratory"] = "exploratory"  # as in `comparisons`
    question: str
    answers: int
    known: int


class Registration(Record):
    """All of registration.json: the study, its questions and rules, and what the store knew at that time."""

    schema_version: Literal["undersong-registration/1"] = REGISTRATION_SCHEMA
    created: str
    study: str
    study_hash: str  # SHA-256 of `config`, canonical
    config: dict[str, Any]  # the study file with all defaults
    loading: dict[str, Any]
    primary: list[Any] = []  # as the study declares them
    rules: DecisionRules
    questions: list[RegisteredQuestion]
    known_verdicts: list[str]  # hashes of verdict artifacts that were in the store
    digest: str  # SHA-256 of everything else

    @property
    def content_digest(self) -> str:
        """The digest that the content has; it differs from `digest` if the file was changed by hand."""
        content = self.model_dump(mode="json", exclude={"digest"})
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()


class QuestionStatus(Record):
    """Whether the question of a comparison was registered, and how much of its answer the store held before.

    `family` is the registered one. Both it and `known` are None for a question that was not registered.
    """

    id: str
    registered: bool
    family: Literal["primary", "exploratory"] | None = None
    known: Literal["none", "part", "all"] | None = None


class RegistrationRecord(Record):
    """The registration of the study, as it was found when the results were written.

    `changes` lists what differs now from the registered study, and `rule_changes` what differs from the registered
    rules. Without changes the study is the one that was registered. `intact` is false if the file was edited.
    """

    created: str
    digest: str
    intact: bool
    study_hash: str
    changes: list[str] = []
    rule_changes: list[str] = []
    primary: list[Any] = []
    questions: list[QuestionStatus] = []
