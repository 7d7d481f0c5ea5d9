"""One arm of a study alone, for a job array: its training and its replies, by the very stages of `audit`, so that a run
of the whole study finds them done.  Makes no results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from undersong.pipeline.audit import (
    compute_proximities,
    encode_corpora,
    evaluate_base,
    load_checked_corpora,
    study_arms,
    train_and_evaluate_arms,
)
from undersong.pipeline.planning.dependencies import check_dependencies
from undersong.pipeline.stages import StudyArm
from undersong.results.records import ModelRecord
from undersong.stages.black_box_models import is_black_box, trainable_models
from undersong.stages.context import RunContext
from undersong.stages.selection import arm_rules, load_selection
from undersong.study import Study
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError

BASE_ARM = "base"  # the arm in which nothing is trained


def arm_names(study: Study) -> list[str]:
    """What the arms of a study are called, before anything is selected; none where all models only answer."""
    tuned = [f"{rule.label}/{modality}" for rule in arm_rules(study) for modality in study.tuning.modalities]
    return [BASE_ARM, *tuned] if trainable_models(study) else []


def check_arm_name(study: Study, name: str) -> None:
    """A name that no arm of the study has."""
    names = arm_names(study)
    if name not in names:
        alternatives = f"; it has {', '.join(names)}." if names else ", because its models only answer."
        raise UndersongError(f"Study {study.study} has no arm {name!r}{did_you_mean(name, names) or alternatives}")


def audit_arm(study: Study, ctx: RunContext, name: str, say: Callable[[str], None]) -> int:
    """What the arm says on every base, at all its seeds; how many times it was asked."""
    check_dependencies(study, ctx)
    record, evaluation_count = load_checked_corpora(study, ctx), 0
    for base_seed, ref in enumerate(study.models):
        if is_black_box(ref):
            continue
        say(f"{ref}: {name} alone")
        features = encode_corpora(ctx, record, ref)
        prompt_features = [features[corpus.artifact.hash] for corpus in record.sets.values()]
        if name == BASE_ARM:
            arm_replies = [evaluate_base(study, ctx, record, StudyArm(ref, base_seed), prompt_features)]
        else:
            model = ModelRecord(ref, base_seed, features)
            compute_proximities(study, ctx, record, model, features)
            arms = [
                arm for arm in study_arms(study, model, partial(load_selection, ctx, record.pool)) if arm.name == name
            ]
            arm_replies = train_and_evaluate_arms(study, ctx, record, arms, features, prompt_features, say)
        evaluation_count += len(arm_replies)
    return evaluation_count
