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


def to_repeat(study: Study, sets: dict[str, Corpus]) -> list[Asked]:
    """The harmful requests that are spoken, to be repeated under the first system text; none where nobody wants it."""
    how = study.evaluation.comprehension
    if how is None or "audio" not in study.evaluation.modalities:
        return []
    manner, text = Manner(how.instruction, how.limit), study.evaluation.systems[study.plain]
    harmful = (name for name, one in study.sets.items() if one.harmful)
    return [Asked(name, sets[name], True, "audio", study.plain, text, manner) for name in harmful]


@dataclass(frozen=True)
class Said:
    """What an arm was asked at a step, and its replies."""

    arm: Arm
    step: int
    adapter: Artefact | None
    asked: list[Asked]
    replies: Artefact
    defense: Defended | None = None
    repeated: Artefact | None = None  # of the harmful requests, where the study tells what was heard


def ask(
    shop: Workshop,
    arm: Arm,
    step: int,
    adapter: Artefact | None,
    asked: list[Asked],
    ears: Sequence[Artefact],
    repeating: Sequence[Asked] = (),
) -> Said:
    """What an arm says at a step."""
    replies = stages.replies(shop, arm, adapter, step, asked, ears)
    repeated = stages.replies(shop, arm, adapter, step, repeating, ears) if repeating else None
    return Said(arm, step, adapter, asked, replies, repeated=repeated)


def judged(study: Study, shop: Workshop, said: Sequence[Said], sets: dict[str, Corpus]) -> list[RunRecord]:
    """Judge by judge: one may need the model's place in memory, and so each is loaded once a base."""
    how = study.evaluation
    judges = (how.judge, *how.also)
    found = {j: [stages.verdicts(shop, one.replies, one.asked, j, how.refusals) for one in said] for j in judges}
    told = zip([one.repeated for one in said], comprehended(study, shop, said, found[how.judge], sets))
    return [
        RunRecord(one.arm, one.step, one.adapter, one.replies, first, tuple(zip(how.also, others)), one.defense, *more)
        for one, more, first, *others in zip(said, told, *found.values())
    ]


def comprehended(
    study: Study, shop: Workshop, said: Sequence[Said], verdicts: Sequence[Artefact], sets: dict[str, Corpus]
) -> list[Artefact | None]:
    """At the last step, of the base and of every arm: what was heard, and what non-refusals are about."""
    how, last = study.evaluation.comprehension, study.tuning.steps[-1]
    if how is None:
        return [None] * len(said)
    harmful = [sets[name] for name, one in study.sets.items() if one.harmful]
    reader, repeating = stages.Reader(how, harmful, shop.loading.device), to_repeat(study, sets)
    return [
        stages.comprehension(shop, reader, one.asked, one.replies, called, repeating, one.repeated)
        if one.arm.kind == "base" or one.step == last
        else None
        for one, called in zip(said, verdicts, strict=True)
    ]
