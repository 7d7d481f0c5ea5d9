"""Run every defense of a study on every undefended arm: train or edit, generate replies, measure retention, and retune
if the study says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from undersong.research.defenses.adapter_edits import project_adapter, remove_layers
from undersong.research.defenses.context import DefenseContext, fit_refusal_artifact
from undersong.research.defenses.retention import measure_task_loss
from undersong.research.defenses.steering import choose_steering
from undersong.research.defenses.training import last_kept_step, retune, train_with_defense
from undersong.stages.context import RunContext
from undersong.stages.prompt_sets import PromptSetRequest
from undersong.stages.replies import generate_replies
from undersong.stages.training import StudyArm
from undersong.store.store import Artifact
from undersong.study.defenses import DefenseSettings
from undersong.study.prompt_requests import prompt_set_requests, repetition_requests
from undersong.study.results.records import ArmReplies, AuditRecord, DefenseArtifacts, ModelRecord
from undersong.types import UndersongError


def prepare_defenses(ctx: RunContext, record: AuditRecord, model_record: ModelRecord) -> None:
    """Prepare what defenses need of a base, and check it, before anything is trained."""
    from undersong.models.refs import model_hash, resolve_model

    study = record.study
    for name, defense in study.defenses.items():
        unaligned = defense.adapter_projection.unaligned if defense.adapter_projection else None
        if unaligned is None:
            continue
        if model_hash(unaligned) == model_hash(model_record.ref):
            raise UndersongError(
                f"Defense {name}: {unaligned} is {model_record.ref} itself, so alignment changed nothing; "
                "give the model that it began from."
            )
        unaligned_family, base_family = (resolve_model(ref)[2].name for ref in (unaligned, model_record.ref))
        if unaligned_family != base_family:
            raise UndersongError(
                f"Defense {name}: {unaligned} is a {unaligned_family}, and {model_record.ref} a {base_family}; "
                "give the model that its alignment began from."
            )
    if any(defense.uses_refusal_direction for defense in study.defenses.values()):
        fit_refusal_artifact(DefenseContext(ctx, record, model_record))


def run_defenses(
    ctx: RunContext, record: AuditRecord, model_record: ModelRecord, arm_replies: Sequence[ArmReplies]
) -> list[ArmReplies]:
    """Generate the replies of the defended arms at the last step, in the order of the study's defenses.

    Args:
        ctx: Run context with the artifact store.
        record: Corpora and settings of the audit.
        model_record: Base model that the arms were trained on.
        arm_replies: Replies of the base and all arms; only undefended tuned arms at the last step are used.
    """
    context, last_step = DefenseContext(ctx, record, model_record), record.study.tuning.save_steps[-1]
    tuned_runs = [run for run in arm_replies if run.arm.kind != "base" and run.step == last_step]
    undefended_runs = [run for run in tuned_runs if run.arm.kind == "closest" and not run.arm.rule]
    return list(_defended_runs(context, undefended_runs, tuned_runs))


def _defended_runs(
    context: DefenseContext, undefended_runs: Sequence[ArmReplies], tuned_runs: Sequence[ArmReplies]
) -> Iterator[ArmReplies]:
    retune_kind = context.study.retune_on
    if retune_kind is not None:
        for run in undefended_runs:
            yield _retuned_run(context, _undefended_run(run), _matching_run(retune_kind, run, tuned_runs))
    for name, defense in context.study.defenses.items():
        context.run_context.announce(f"{context.model_record.ref}: defense {name}")
        for run in undefended_runs:
            data_run = run if defense.selection is None else _matching_run(defense.selection, run, tuned_runs)
            defended_run = _apply_defense(context, name, defense, run, data_run)
            yield defended_run
            if retune_kind is not None:
                yield _retuned_run(context, defended_run, _matching_run(retune_kind, run, tuned_runs))


def _undefended_run(run: ArmReplies) -> ArmReplies:
    """Undefended arm, as if a defense without any change were applied."""
    assert run.adapter is not None
    requests = [request for request in run.asked if request.system == run.asked[0].system]
    return replace(run, asked=requests, defense=DefenseArtifacts("none", (), run.adapter, None, None, ()))


def _retuned_run(context: DefenseContext, run: ArmReplies, data_run: ArmReplies) -> ArmReplies:
    """Defended arm after a second training on benign data; system prompt and steering are kept."""
    assert run.adapter is not None
    assert run.defense is not None
    step = last_kept_step(run.adapter, run.step)
    adapter = retune(context, data_run.arm, run.adapter, step)
    steering_artifact = run.defense.steering
    reply_artifact = generate_replies(
        context.run_context, data_run.arm, adapter, run.step, run.asked, steering_artifact
    )
    repetitions = _repetitions(context, data_run.arm, adapter, run.step, steering_artifact)
    defense_record = replace(run.defense, losses=(), again=True)
    return replace(run, adapter=adapter, replies=reply_artifact, defense=defense_record, repeated=repetitions)


def _matching_run(kind: str, run: ArmReplies, tuned_runs: Sequence[ArmReplies]) -> ArmReplies:
    """Run on data of a kind that matches `run`, with the same axis and fraction if the kind has them."""
    candidates = [
        candidate
        for candidate in tuned_runs
        if candidate.arm.kind == kind
        and (candidate.arm.modality, candidate.arm.seed, candidate.arm.draw)
        == (run.arm.modality, run.arm.seed, run.arm.draw)
    ]
    exact_matches = [
        candidate
        for candidate in candidates
        if (candidate.arm.axis, candidate.arm.fraction) == (run.arm.axis, run.arm.fraction)
    ]
    return (exact_matches or candidates)[0]


def _apply_defense(
    context: DefenseContext, name: str, defense: DefenseSettings, run: ArmReplies, data_run: ArmReplies
) -> ArmReplies:
    study, last_step = context.study, run.step
    changes_training = defense.corpora or defense.constrained_sft
    adapter = train_with_defense(context, data_run.arm, defense) if changes_training else data_run.adapter
    assert adapter is not None
    assert run.adapter is not None
    trained_adapter, step = adapter, last_kept_step(adapter, last_step)
    edited_adapter = None
    if defense.adapter_projection:
        edited_adapter = adapter = project_adapter(context, trained_adapter, step, defense.adapter_projection)
    if defense.layer_removal:
        edited_adapter = adapter = remove_layers(context, trained_adapter, step, defense.layer_removal)
    steering_artifact = choose_steering(context, adapter, step, defense.steering) if defense.steering else None
    system = defense.system or study.undefended_system
    requests = _prompt_set_requests(context, system)
    arm = replace(data_run.arm, kind=run.arm.kind, axis=run.arm.axis, fraction=run.arm.fraction, rule="")
    reply_artifact = generate_replies(context.run_context, data_run.arm, adapter, step, requests, steering_artifact)
    arms = [run.arm, data_run.arm]
    losses = (
        measure_task_loss(context, arms, None, 0, study.undefended_system, None),
        measure_task_loss(context, arms, run.adapter, last_step, study.undefended_system, None),
        measure_task_loss(context, arms, adapter, step, system, steering_artifact),
    )
    defense_record = DefenseArtifacts(name, defense.changes, trained_adapter, edited_adapter, steering_artifact, losses)
    return ArmReplies(
        arm,
        last_step,
        adapter,
        requests,
        reply_artifact,
        defense_record,
        _repetitions(context, data_run.arm, adapter, step, steering_artifact),
    )


def _repetitions(
    context: DefenseContext, arm: StudyArm, adapter: Artifact, step: int, steering_artifact: Artifact | None
) -> Artifact | None:
    """Repetitions of harmful requests, if the study measures comprehension."""
    requests = repetition_requests(context.study, context.record.sets)
    return generate_replies(context.run_context, arm, adapter, step, requests, steering_artifact) if requests else None


def _prompt_set_requests(context: DefenseContext, system: str) -> list[PromptSetRequest]:
    """All prompt sets of the last step, with the given system prompt."""
    study = context.study
    plain_requests = [
        request
        for request in prompt_set_requests(study, context.record.sets, context.model_record.ref, is_last_step=True)
        if request.system == study.undefended_system
    ]
    return [replace(request, system=system, system_text=study.system_text(system)) for request in plain_requests]
