"""Registration of a study before its results: its questions, the rules, and the answers that the store already has."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from undersong import __version__
from undersong.evaluation.rates import attack_metric
from undersong.models.load_options import LoadOptions
from undersong.results.files import read_results_file
from undersong.results.schema import Results, RunResult
from undersong.results.schema_base import value_text
from undersong.results.schema_registration import (
    DecisionRules,
    QuestionStatus,
    RegisteredQuestion,
    Registration,
    RegistrationRecord,
)
from undersong.store.atomic import write_atomic
from undersong.store.hashing import canonical_json
from undersong.study.load import parse_study
from undersong.study.planning.planning_store import PlanningStore, plan_artifacts
from undersong.study.planning.power import study_contrasts
from undersong.study.results.comparisons import recipe_question_id
from undersong.study.results.contrasts import ContrastArm, PrimaryPlan
from undersong.study.results.model_comparisons import (
    ModelQuestion,
    base_question,
    model_question_id,
    system_prompt_question,
)
from undersong.study.results.records import ModelRecord, RunRecord
from undersong.study.schema import Study
from undersong.study.study_folder import REGISTRATION_FILE
from undersong.types import UndersongError

ABSENT = "absent"


def register_study(
    study: Study, store_root: Path, loading: LoadOptions, created: str, unread: bool = False
) -> Registration:
    """Register a study: its hash, questions and rules, and which of its verdicts the store holds. Loads no model.

    Args:
        study: The study.
        store_root: Folder of the store.
        loading: Loading options of the models.
        created: Time of the registration.
        unread: Identify corpora that are not on this machine by their names.

    Raises:
        UndersongError: A corpus, model or encoder is invalid.
    """
    planning_store = plan_artifacts(study, store_root, loading, unread)
    known = _known_verdicts(planning_store)
    config = study.model_dump(mode="json")
    registration = Registration(
        created=created,
        study=study.study,
        study_hash=_hash(config),
        config=config,
        loading=loading.cache_key,
        primary=list(study.analysis.primary),
        rules=DecisionRules(undersong=__version__),
        questions=list(_questions(study, planning_store.models, known)),
        known_verdicts=sorted(known),
        digest="",
    )
    return registration.model_copy(update={"digest": registration.content_digest})


def write_registration(registration: Registration, file: Path) -> None:
    """Write a registration to a new file; one that exists is never replaced.

    Raises:
        UndersongError: The file exists.
    """
    if file.exists():
        raise UndersongError(
            f"{file} exists, and a registration is never written again; name another file with --registration."
        )
    content = json.dumps(registration.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomic(file, content.encode() + b"\n")


def read_registration(file: Path) -> Registration:
    """Read a registration.

    Raises:
        UndersongError: There is no such file, or it holds no registration.
    """
    if not file.exists():
        raise UndersongError(f"There is no registration {file}; write it with `undersong plan STUDY --register`.")
    try:
        return Registration.model_validate(read_results_file(file, "give the file that `plan --register` wrote"))
    except ValidationError as error:
        location = ".".join(map(str, error.errors()[0]["loc"]))
        raise UndersongError(
            f"{file} holds no registration (problem at {location!r}); name the file that `plan --register` wrote."
        ) from error


def find_registration(file: Path | None, out: Path) -> Registration | None:
    """Read the registration that is named, or else the one in the output folder; None if there is neither."""
    if file is not None:
        return read_registration(file)
    return read_registration(out / REGISTRATION_FILE) if (out / REGISTRATION_FILE).exists() else None


def registration_lines(file: Path | None, out: Path, study: Study, loading: LoadOptions) -> list[str]:
    """Say how a study differs from its registration, and whether the rules do; empty if there is none.

    Args:
        file: The registration; None: the one in the output folder, if it is there.
        out: The output folder.
        study: The study.
        loading: Loading options of the models.
    """
    registration = find_registration(file, out)
    if registration is None:
        return []
    name = file or out / REGISTRATION_FILE
    changes, rule_changes = _study_changes(registration, study, loading), _rule_changes(registration)
    lines = []
    if changes:
        lines.append(
            f"The study differs from its registration {name} ({registration.created}): {'; '.join(changes)}; the "
            "results will say so."
        )
    if rule_changes:
        lines.append(f"The rules differ from those of the registration {name}: {'; '.join(rule_changes)}.")
    return lines or [f"The study is as registered in {name} ({registration.created})."]


def _study_changes(registration: Registration, study: Study, loading: LoadOptions) -> list[str]:
    return [
        *_changes(_current_config(registration), study.model_dump(mode="json")),
        *_changes(registration.loading, loading.cache_key, "loading."),
    ]


def _rule_changes(registration: Registration) -> list[str]:
    return list(_changes(registration.rules.model_dump(), DecisionRules(undersong=__version__).model_dump()))


def check_registration(
    registration: Registration, study: Study, loading: LoadOptions, results: Results
) -> RegistrationRecord:
    """Compare a registration with the study that was run, and tell which questions of the results it holds.

    Args:
        registration: The registration.
        study: The study that was run.
        loading: Loading options that it was run with.
        results: Its results.
    """
    registered = {question.id: question for question in registration.questions}
    hashes = registration.content_digest, _hash(registration.config)
    return RegistrationRecord(
        created=registration.created,
        digest=registration.digest,
        intact=(registration.digest, registration.study_hash) == hashes,
        study_hash=registration.study_hash,
        changes=_study_changes(registration, study, loading),
        rule_changes=_rule_changes(registration),
        primary=registration.primary,
        questions=[_question_status(comparison.id, registered) for comparison in results.comparisons],
    )


def _hash(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(dict(config)).encode()).hexdigest()


def _known_verdicts(planning_store: PlanningStore) -> set[str]:
    return {
        key
        for key, artifact in planning_store.planned.items()
        if artifact.stage == "verdicts" and artifact.existing is not None
    }


def _questions(study: Study, models: Sequence[ModelRecord], known: set[str]) -> Iterator[RegisteredQuestion]:
    """Yield the comparisons of the results: of recipes, then of each adapter with its base and its system prompts."""
    metric, last_step = attack_metric(study.evaluation.judge), study.tuning.save_steps[-1]
    prompts = [
        (name, modality)
        for name, prompt_set in sorted(study.prompt_sets.items())
        if prompt_set.harmful
        for modality in sorted(study.evaluation.modalities)
        if prompt_set.noise is None or modality != "text"  # prompts in noise are spoken only
    ]
    compared = [run for model in models for run in model.runs if run.arm.kind == "base" or run.step == last_step]
    asked = [(contrast, *prompt) for prompt in prompts for contrast in study_contrasts(study)]
    primary = PrimaryPlan.of_study(study).choose(asked)
    for place, (contrast, name, modality) in enumerate(asked):
        arms = {*_arm_names(contrast.a), *_arm_names(contrast.b)}
        answers = {run.verdicts.hash for run in compared if run.arm.name in arms}
        yield RegisteredQuestion(
            id=recipe_question_id(contrast.a, contrast.b, name, modality, metric),
            scope="recipe",
            family="primary" if place in primary else "exploratory",
            question=f"{contrast.question} ({name}, {modality})",
            answers=len(answers),
            known=len(answers & known),
        )
    for model in models:
        base = next(run for run in model.runs if run.arm.kind == "base").verdicts.hash
        for run in (run for run in model.runs if run.arm.kind != "base" and run.step == last_step):
            for name, modality in prompts:
                for question, answers in _model_questions(study, run, base, modality):
                    yield RegisteredQuestion(
                        id=model_question_id(_run_stub(run), question, name, modality, metric),
                        scope="model",
                        question=f"{question.text} ({model.ref}, {name})",
                        answers=len(answers),
                        known=len(answers & known),
                    )


def _model_questions(
    study: Study, run: RunRecord, base_verdicts: str, modality: str
) -> Iterator[tuple[ModelQuestion, set[str]]]:
    """Yield the questions about one adapter, with the verdicts that answer each."""
    stub, plain, defense_system = _run_stub(run), study.undefended_system, study.system_defense
    yield base_question(stub, modality, plain), {base_verdicts, run.verdicts.hash}
    if defense_system is not None and run.arm.kind == "closest":
        yield system_prompt_question(stub, modality, plain, defense_system), {run.verdicts.hash}


def _arm_names(side: ContrastArm) -> list[str]:
    return [run.arm for run in side.runs] + ([] if side.subtracted is None else _arm_names(side.subtracted))


def _run_stub(run: RunRecord) -> RunResult:
    """The identity of a run that may not have been made."""
    arm = run.arm
    return RunResult(
        arm=arm.name,
        model=arm.model,
        base_seed=arm.base_seed,
        kind=arm.kind,
        seed=arm.seed,
        draw=arm.draw,
        step=run.step,
    )


def _current_config(registration: Registration) -> Mapping[str, Any]:
    """The registered study with the defaults of this version, so that a new key is no change of the study."""
    try:
        return parse_study(registration.config, "registration").model_dump(mode="json")
    except UndersongError:  # of another version, or edited: the comparison shows where
        return registration.config


def _changes(registered: Mapping[str, Any], current: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield `KEY: registered value, now value` for each key that differs."""
    for key in dict.fromkeys((*registered, *current)):
        before, after = registered.get(key, ABSENT), current.get(key, ABSENT)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _changes(before, after, f"{path}{key}.")
        elif before != after:
            yield f"{path}{key}: {value_text(before)}, now {value_text(after)}"


def _question_status(question_id: str, registered: Mapping[str, RegisteredQuestion]) -> QuestionStatus:
    question = registered.get(question_id)
    if question is None:
        return QuestionStatus(id=question_id, registered=False)
    known: Literal["none", "part", "all"] = (
        "none" if question.known == 0 else "all" if question.known == question.answers else "part"
    )
    return QuestionStatus(id=question_id, registered=True, family=question.family, known=known)
