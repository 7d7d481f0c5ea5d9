"""Task retention: the loss on held-out benign replies, which shows whether a defense undoes what the tuning taught."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from undersong.research.defenses.context import DefenseContext, mean_reply_loss
from undersong.stages.features import MODEL_PACKAGES, encodable_samples
from undersong.stages.replies import apply_steering
from undersong.stages.training import StudyArm, training_instruction, training_recipe, training_targets
from undersong.store.draft import Draft
from undersong.store.store import Artifact
from undersong.types import Sample

MAX_SAMPLES = 64


def held_out_samples(samples: Sequence[Sample], arms: Sequence[StudyArm]) -> list[Sample]:
    """Samples in whole groups that no selection of `arms` touches; at most `MAX_SAMPLES`, chosen by a hash of their
    ids."""
    trained = {sample_id for arm in arms if arm.selection is not None for sample_id in arm.selection.ids}
    clusters = {sample.cluster for sample in samples if sample.id in trained}
    remaining = [sample for sample in samples if sample.cluster not in clusters]
    return sorted(remaining, key=lambda sample: hashlib.sha256(sample.id.encode()).hexdigest())[:MAX_SAMPLES]


def measure_task_loss(
    context: DefenseContext,
    arms: Sequence[StudyArm],
    adapter: Artifact | None,
    step: int,
    system: str,
    steering: Artifact | None,
) -> Artifact:
    """Artifact with the mean loss per token of the target replies (`retention_loss.json`), null if no sample is left.

    Prompts are in the training modality of the first arm, on samples that none of the arms was trained on.

    Args:
        context: Context of the base.
        arms: Arms whose training samples are excluded.
        adapter: The adapter; None for the base.
        step: Step of the adapter.
        system: Name of the system prompt.
        steering: Chosen steering vector.
    """
    study, pool, arm = context.study, context.record.pool, arms[0]
    system_text, target = study.system_text(system), study.tuning.target_column
    features = context.audio_features(pool)
    instruction = training_instruction(training_recipe(study.tuning), arm.modality or "audio")

    def make(draft: Draft) -> None:
        from undersong.evaluation.prompts import make_prompts

        assert arm.modality is not None
        samples, loss = held_out_samples(encodable_samples(pool, features)[0], arms), None
        if samples:
            prompts = make_prompts(
                samples,
                set_name="pool",
                harmful=False,
                modality=arm.modality,
                system=system,
                system_text=system_text,
                **instruction,
            )
            ctx = context.run_context
            with ctx.model_with_audio(arm.model, [pool], adapter, step) as model, apply_steering(model, steering):
                loss = mean_reply_loss(model, list(zip(prompts, training_targets(samples, target))))
        with draft.file("retention_loss.json") as path:
            path.write_text(json.dumps({"loss": loss, "n": len(samples)}) + "\n", encoding="utf-8")

    selection_hashes = sorted(
        {trained_arm.selection.ids_hash for trained_arm in arms if trained_arm.selection is not None}
    )
    config = {
        "apart_from": selection_hashes,
        "modality": arm.modality,
        "system": system_text,
        "target": target,
        "step": step,
        "loading": context.run_context.loading.cache_key,
        **instruction,
    }
    inputs: dict[str, Artifact | str] = {"model": context.weights_hash, "pool": pool.artifact, "features": features}
    if adapter is not None:
        inputs["adapter"] = adapter
    if steering is not None:
        inputs["steering"] = steering
    return context.run_context.store.get_or_make("retention_loss", 1, config, inputs, make, packages=MODEL_PACKAGES)
