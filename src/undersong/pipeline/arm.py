"""One arm of a study alone, for a job array: its training and its replies, by the very stages of `audit`, so that a run
of the whole study finds them done.  Makes no results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from undersong.hints import nearest
from undersong.pipeline.audit import arms_of, ask_arms, ask_base, hear, screen, usable
from undersong.pipeline.records import ModelRecord
from undersong.pipeline.speakers import answers_only, trained
from undersong.pipeline.stages import Arm
from undersong.pipeline.stages.selections import rules_of, selection
from undersong.pipeline.uninstalled import refuse_uninstalled
from undersong.pipeline.workshop import Workshop
from undersong.study import Study
from undersong.types import UndersongError

BASE = "base"  # the arm in which nothing is trained


def arm_names(study: Study) -> list[str]:
    """What the arms of a study are called, before anything is selected; none where all models only answer."""
    tuned = [f"{rule.label}/{modality}" for rule in rules_of(study) for modality in study.tuning.modalities]
    return [BASE, *tuned] if trained(study) else []


def refuse_arm(study: Study, name: str) -> None:
    """A name that no arm of the study has."""
    known = arm_names(study)
    if name not in known:
        there = f"; it has {', '.join(known)}." if known else ", because its models only answer."
        raise UndersongError(f"Study {study.study} has no arm {name!r}{nearest(name, known) or there}")


def audit_arm(study: Study, shop: Workshop, name: str, say: Callable[[str], None]) -> int:
    """What the arm says on every base, at all its seeds; how many times it was asked."""
    refuse_uninstalled(study, shop)
    record, times = usable(study, shop), 0
    for number, ref in enumerate(study.models):
        if answers_only(ref):
            continue
        say(f"{ref}: {name} alone")
        heard = hear(shop, record, ref)
        ears = [heard[one.artefact.hash] for one in record.sets.values()]
        if name == BASE:
            said = [ask_base(study, shop, record, Arm(ref, number), ears)]
        else:
            model = ModelRecord(ref, number, heard)
            screen(study, shop, record, model, heard)
            arms = [arm for arm in arms_of(study, model, partial(selection, shop, record.pool)) if arm.name == name]
            said = ask_arms(study, shop, record, arms, heard, ears, say)
        times += len(said)
    return times
