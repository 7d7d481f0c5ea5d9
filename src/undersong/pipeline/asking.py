"""What a study asks an arm at a step, and who judges its replies.  Knows the study and the stages; decides no order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.models.identify import family_named
from undersong.pipeline import stages
from undersong.pipeline.records import Defended, RunRecord
from undersong.pipeline.stages import Arm, Asked
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact
from undersong.study import PromptSet, Study
from undersong.study.protocols import Manner, published_manner


def asked_at(study: Study, sets: dict[str, Corpus], ref: str, last: bool) -> list[Asked]:
    """At the last step everything; before it the curve's sets, spoken, under the plain system text."""
    evaluation, out = study.evaluation, []
    for name, one in study.sets.items():
        for modality in evaluation.modalities:
            if one.noise is not None and modality == "text":
                continue  # nothing is heard of it
            manner = manner_of(study, ref, modality, one)
            for system, text in evaluation.systems.items():
                curve = name in evaluation.curve and modality == "audio" and system == study.plain
                if last or curve:
                    out.append(Asked(name, sets[name], one.harmful, modality, system, text, manner, one.judge))
    return out


def manner_of(study: Study, ref: str, modality: str, asked: PromptSet | None = None) -> Manner:
    """How a model is asked, and with what of its own a set is."""
    how = study.evaluation
    if how.protocol == "published":
        manner = published_manner(family_named(ref).name, modality)
    else:
        manner = Manner(how.instruction, study.limit)
    if asked is not None and asked.instruction is not None:
        manner = replace(manner, instruction=asked.instruction, first=False)
    return manner if asked is None or asked.limit is None else replace(manner, limit=asked.limit)


@dataclass(frozen=True)
class Said:
    """What an arm was asked at a step, and its replies."""

    arm: Arm
    step: int
    adapter: Artefact | None
    asked: list[Asked]
    replies: Artefact
    defense: Defended | None = None


def ask(
    shop: Workshop,
    arm: Arm,
    step: int,
    adapter: Artefact | None,
    asked: list[Asked],
    ears: Sequence[Artefact],
) -> Said:
    """What an arm says at a step."""
    replies = stages.replies(shop, arm, adapter, step, asked, ears)
    return Said(arm, step, adapter, asked, replies)


def judged(study: Study, shop: Workshop, said: Sequence[Said]) -> list[RunRecord]:
    """Judge by judge: one may need the model's place in memory, and so each is loaded once a base."""
    how = study.evaluation
    judges = (how.judge, *how.also)
    found = {j: [stages.verdicts(shop, one.replies, one.asked, j, how.refusals) for one in said] for j in judges}
    return [
        RunRecord(one.arm, one.step, one.adapter, one.replies, first, tuple(zip(how.also, others)), one.defense)
        for one, first, *others in zip(said, *found.values())
    ]
