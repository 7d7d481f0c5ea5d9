"""Evaluation of one trained arm: replies, verdicts, comprehension and refusal gap."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.research.mechanism import artifacts as mechanism
from undersong.research.mechanism.artifacts import ContrastRequests
from undersong.stages.comprehension import ReplyEncoder, evaluate_comprehension
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import compute_features
from undersong.stages.prompt_sets import PromptSetRequest
from undersong.stages.replies import generate_replies, judge_replies
from undersong.stages.training import StudyArm
from undersong.store.store import Artifact
from undersong.study.prompt_requests import prompt_settings_for, repetition_requests
from undersong.study.results.records import ArmReplies, AuditRecord, ModelRecord, RunRecord
from undersong.study.schema import MechanismSettings


def measure_refusal_gaps(
    ctx: RunContext,
    record: AuditRecord,
    model: ModelRecord,
    settings: MechanismSettings,
    arm_replies: Sequence[ArmReplies],
) -> None:
    """Fit refusal directions on the base's contrast sets and project held-out prompts of the base and of tuned arms.

    Args:
        ctx: Run context with the artifact store.
        record: Corpora and settings of the audit.
        model: Record of the base model; the projections are appended to it.
        settings: Mechanism settings of the study, which name the held-out prompt sets.
        arm_replies: Replies of the base and all arms; arms are measured at their last step only.
    """
    study, base = record.study, StudyArm(model.ref, model.base_seed)
    for corpus in record.contrast_corpora.values():
        compute_features(ctx, model.ref, corpus)
    measured = [
        replies for replies in arm_replies if replies.arm.kind == "base" or replies.step == study.tuning.save_steps[-1]
    ]
    for modality in study.evaluation.modalities:
        fit_requests = _contrast_requests(record, model, modality, *record.contrast_corpora.values())
        held_out_requests = _contrast_requests(
            record, model, modality, record.sets[settings.held_out_harmful], record.sets[settings.held_out_benign]
        )
        direction = mechanism.fit_base_direction(ctx, base, fit_requests)
        states = mechanism.compute_hidden_states(ctx, base, held_out_requests)
        for replies in measured:
            projections = mechanism.project_held_out(
                ctx, replies.arm, replies.adapter, replies.step, direction, states, fit_requests, held_out_requests
            )
            model.projections.append((replies.arm, replies.step, modality, projections))


def _contrast_requests(
    record: AuditRecord, model: ModelRecord, modality: str, harmful: Corpus, benign: Corpus
) -> ContrastRequests:
    """Return the harmful and benign prompts in one modality under the first system prompt."""
    study, system = record.study, record.study.undefended_system
    prompt_settings = prompt_settings_for(study, model.ref, modality)

    def request(corpus: Corpus, is_harmful: bool) -> PromptSetRequest:
        system_text = study.system_text(system)
        return PromptSetRequest("contrast", corpus, is_harmful, modality, system, system_text, prompt_settings)

    return ContrastRequests(request(harmful, True), request(benign, False))


def evaluate_arm(
    ctx: RunContext,
    arm: StudyArm,
    step: int,
    adapter: Artifact | None,
    requests: list[PromptSetRequest],
    repeat_requests: Sequence[PromptSetRequest] = (),
) -> ArmReplies:
    """Generate the replies of an arm at a step.

    Args:
        ctx: Store, model and audio features.
        arm: The arm at one draw and seed.
        step: Training step of the adapter.
        adapter: Adapter artifact; None for the base.
        requests: Prompt sets to evaluate.
        repeat_requests: Harmful requests that the model is to repeat, if the study measures comprehension.
    """
    replies = generate_replies(ctx, arm, adapter, step, requests)
    repetitions = generate_replies(ctx, arm, adapter, step, repeat_requests) if repeat_requests else None
    return ArmReplies(arm, step, adapter, requests, replies, repeated=repetitions)


def judge_arm_replies(ctx: RunContext, record: AuditRecord, arm_replies: Sequence[ArmReplies]) -> list[RunRecord]:
    """Judge by judge: one may need the model's place in memory, and so each is loaded once a base."""
    evaluation = record.study.evaluation
    judges = (evaluation.judge, *evaluation.extra_judges)
    verdicts_by_judge = {
        judge: [
            judge_replies(ctx, reply_set.replies, reply_set.asked, judge, record.study.refusal_texts)
            for reply_set in arm_replies
        ]
        for judge in judges
    }
    comprehension_pairs = zip(
        [reply_set.repeated for reply_set in arm_replies],
        evaluate_arm_comprehension(ctx, record, arm_replies, verdicts_by_judge[evaluation.judge]),
    )
    return [
        RunRecord(
            reply_set.arm,
            reply_set.step,
            reply_set.adapter,
            reply_set.replies,
            main_verdicts,
            tuple(zip(evaluation.extra_judges, other_verdicts)),
            reply_set.defense,
            *comprehension_pair,
        )
        for reply_set, comprehension_pair, main_verdicts, *other_verdicts in zip(
            arm_replies, comprehension_pairs, *verdicts_by_judge.values()
        )
    ]


def evaluate_arm_comprehension(
    ctx: RunContext, record: AuditRecord, arm_replies: Sequence[ArmReplies], verdicts: Sequence[Artifact]
) -> list[Artifact | None]:
    """Measure comprehension of harmful requests for the base, and for every arm at its last step.

    Args:
        ctx: Run context with the artifact store.
        record: Corpora and settings of the audit.
        arm_replies: Replies of the base and all arms at each step.
        verdicts: Verdict artifacts, one per item of `arm_replies` in the same order.

    Returns:
        One artifact per item of `arm_replies`; None for an earlier step, or if the study does not check comprehension.
    """
    study, last_step = record.study, record.study.tuning.save_steps[-1]
    comprehension_config = study.evaluation.comprehension
    if comprehension_config is None:
        return [None] * len(arm_replies)
    harmful_corpora = [record.sets[name] for name, prompt_set in study.prompt_sets.items() if prompt_set.harmful]
    reply_encoder, repeat_requests = (
        ReplyEncoder(comprehension_config, harmful_corpora, ctx.loading.device),
        repetition_requests(study, record.sets),
    )
    return [
        evaluate_comprehension(
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
