"""What a study asks an arm at a step, and who judges its replies.  Knows the study and the stages; decides no order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from undersong.models.identify import family_of_ref
from undersong.pipeline import stages
from undersong.pipeline.records import DefenseArtifacts, RunRecord
from undersong.pipeline.stages import PromptSetRequest, StudyArm
from undersong.pipeline.workshop import Corpus, RunContext
from undersong.store import Artifact
from undersong.study import PromptSet, Study
from undersong.study.protocols import Manner, published_prompt_settings


def prompt_set_requests(
    study: Study, corpora: dict[str, Corpus], ref: str, is_last_step: bool
) -> list[PromptSetRequest]:
    """At the last step everything; before it the curve's sets, spoken, under the plain system text."""
    evaluation, requests = study.evaluation, []
    for name, prompt_set in study.sets.items():
        for modality in evaluation.modalities:
            if prompt_set.noise is not None and modality == "text":
                continue  # nothing is heard of it
            prompt_settings = prompt_settings_for(study, ref, modality, prompt_set)
            for system, system_text in evaluation.systems.items():
                on_curve = name in evaluation.curve and modality == "audio" and system == study.undefended_system
                if is_last_step or on_curve:
                    requests.append(
                        PromptSetRequest(
                            name,
                            corpora[name],
                            prompt_set.harmful,
                            modality,
                            system,
                            system_text,
                            prompt_settings,
                            prompt_set.judge,
                        )
                    )
    return requests


def prompt_settings_for(study: Study, ref: str, modality: str, prompt_set: PromptSet | None = None) -> Manner:
    """How a model is asked, and with what of its own a set is."""
    evaluation = study.evaluation
    if evaluation.protocol == "published":
        prompt_settings = published_prompt_settings(family_of_ref(ref).name, modality)
    else:
        prompt_settings = Manner(evaluation.instruction, study.max_new_tokens)
    if prompt_set is not None and prompt_set.instruction is not None:
        prompt_settings = replace(prompt_settings, instruction=prompt_set.instruction, first=False)
    return (
        prompt_settings
        if prompt_set is None or prompt_set.limit is None
        else replace(prompt_settings, limit=prompt_set.limit)
    )


def repetition_requests(study: Study, corpora: dict[str, Corpus]) -> list[PromptSetRequest]:
    """The harmful requests that are spoken, to be repeated under the first system text; none where nobody wants it."""
    comprehension_config = study.evaluation.comprehension
    if comprehension_config is None or "audio" not in study.evaluation.modalities:
        return []
    prompt_settings, system_text = (
        Manner(comprehension_config.instruction, comprehension_config.limit),
        study.evaluation.systems[study.undefended_system],
    )
    harmful_sets = (name for name, prompt_set in study.sets.items() if prompt_set.harmful)
    return [
        PromptSetRequest(name, corpora[name], True, "audio", study.undefended_system, system_text, prompt_settings)
        for name in harmful_sets
    ]


@dataclass(frozen=True)
class ArmReplies:
    """What an arm was asked at a step, and its replies."""

    arm: StudyArm
    step: int
    adapter: Artifact | None
    asked: list[PromptSetRequest]
    replies: Artifact
    defense: DefenseArtifacts | None = None
    repeated: Artifact | None = None  # of the harmful requests, where the study tells what was heard


def evaluate_arm(
    ctx: RunContext,
    arm: StudyArm,
    step: int,
    adapter: Artifact | None,
    requests: list[PromptSetRequest],
    prompt_features: Sequence[Artifact],
    repeat_requests: Sequence[PromptSetRequest] = (),
) -> ArmReplies:
    """What an arm says at a step."""
    replies = stages.generate_replies(ctx, arm, adapter, step, requests, prompt_features)
    repetitions = (
        stages.generate_replies(ctx, arm, adapter, step, repeat_requests, prompt_features) if repeat_requests else None
    )
    return ArmReplies(arm, step, adapter, requests, replies, repeated=repetitions)


def judge_arm_replies(
    study: Study, ctx: RunContext, arm_replies: Sequence[ArmReplies], corpora: dict[str, Corpus]
) -> list[RunRecord]:
    """Judge by judge: one may need the model's place in memory, and so each is loaded once a base."""
    evaluation = study.evaluation
    judges = (evaluation.judge, *evaluation.also)
    verdicts_by_judge = {
        judge: [
            stages.judge_replies(ctx, reply_set.replies, reply_set.asked, judge, evaluation.refusals)
            for reply_set in arm_replies
        ]
        for judge in judges
    }
    comprehension_pairs = zip(
        [reply_set.repeated for reply_set in arm_replies],
        evaluate_arm_comprehension(study, ctx, arm_replies, verdicts_by_judge[evaluation.judge], corpora),
    )
    return [
        RunRecord(
            reply_set.arm,
            reply_set.step,
            reply_set.adapter,
            reply_set.replies,
            main_verdicts,
            tuple(zip(evaluation.also, other_verdicts)),
            reply_set.defense,
            *comprehension_pair,
        )
        for reply_set, comprehension_pair, main_verdicts, *other_verdicts in zip(
            arm_replies, comprehension_pairs, *verdicts_by_judge.values()
        )
    ]


def evaluate_arm_comprehension(
    study: Study,
    ctx: RunContext,
    arm_replies: Sequence[ArmReplies],
    verdicts: Sequence[Artifact],
    corpora: dict[str, Corpus],
) -> list[Artifact | None]:
    """At the last step, of the base and of every arm: what was heard, and what non-refusals are about."""
    comprehension_config, last_step = study.evaluation.comprehension, study.tuning.steps[-1]
    if comprehension_config is None:
        return [None] * len(arm_replies)
    harmful_corpora = [corpora[name] for name, prompt_set in study.sets.items() if prompt_set.harmful]
    reply_encoder, repeat_requests = (
        stages.ReplyEncoder(comprehension_config, harmful_corpora, ctx.loading.device),
        repetition_requests(study, corpora),
    )
    return [
        stages.evaluate_comprehension(
            ctx,
            reply_encoder,
            reply_set.asked,
            reply_set.replies,
            verdict_artifact,
            repeat_requests,
            reply_set.repeated,
        )
        if reply_set.arm.kind == "base" or reply_set.step == last_step
        else None
        for reply_set, verdict_artifact in zip(arm_replies, verdicts, strict=True)
    ]
