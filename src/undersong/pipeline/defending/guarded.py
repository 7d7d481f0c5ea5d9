"""Defenses of the training itself: refusals mixed in, first tokens held, a canary that stops it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from undersong.pipeline import stages
from undersong.pipeline.defending.bench import Bench
from undersong.pipeline.probing.asked import Sides
from undersong.pipeline.stages import Arm, adapter_folder
from undersong.pipeline.stages.arms import Guard
from undersong.pipeline.stages.training import recipe_of, targets_of
from undersong.store import Artefact
from undersong.study.defenses import Canary, Defense, Mixing
from undersong.tuning.recipe import PUBLISHED

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel
    from undersong.tuning.canary import Watch
    from undersong.tuning.mixing import Mixing as Mixed


def guarded(bench: Bench, arm: Arm, defense: Defense) -> Artefact:
    """The arm trained as ever, but for what the defense changes of the training."""
    held = {}
    if defense.constrained:
        held["betas"] = list(defense.constrained if isinstance(defense.constrained, tuple) else PUBLISHED)
    return _trained(bench, arm, held, _guard(bench, arm, defense) if defense.corpora else None)


def tuned_again(bench: Bench, data: Arm, adapter: Artefact, step: int) -> Artefact:
    """A second training on top of what was kept at `step`, on the samples of `data`, as the study trains."""

    def make(_model: AudioModel) -> dict[str, Any]:
        return {"start": adapter_folder(adapter.checked(), step)}

    return _trained(bench, data, {}, Guard({"start_step": step}, {"start": adapter}, (), make))


def _trained(bench: Bench, arm: Arm, held: dict[str, Any], guard: Guard | None) -> Artefact:
    """As the study trains, but for what `held` says of the recipe, and the guard."""
    study, pool = bench.study, bench.record.pool
    recipe, text = recipe_of(study.tuning) | held, study.system_text(study.plain)
    return stages.adapter(bench.shop, arm, pool, bench.hears(pool), recipe, text, study.tuning.target, guard)


def step_of(trained: Artefact, last: int) -> int:
    """The last step that a training kept: an earlier one where a canary stopped it."""
    kept = [int(folder.name.removeprefix("step-")) for folder in trained.path.glob("step-*")]
    return max(kept, default=last)


def _guard(bench: Bench, arm: Arm, defense: Defense) -> Guard:
    assert arm.modality is not None
    corpora = {role: bench.record.defending[ref] for role, ref in defense.corpora.items()}
    config: dict[str, Any] = {}
    if defense.mixing:
        named = defense.mixing.model_dump(exclude={"corpus"})
        config["mixing"] = {**named, "manner": str(bench.manner(arm.modality))}
    if defense.canary:
        config["canary"] = {
            **defense.canary.model_dump(exclude={"harmful", "harmless"}),
            "asked": bench.contrast_config,
        }

    def make(model: AudioModel) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if defense.mixing:
            found["mixing"] = _mixing(bench, arm, defense.mixing)
        if defense.canary:
            found["watch"] = _watch(bench, arm, defense.canary, model)
        return found

    inputs = {role: corpus.artefact for role, corpus in corpora.items()}
    return Guard(config, inputs, tuple(bench.hears(corpus) for corpus in corpora.values()), make)


def _mixing(bench: Bench, arm: Arm, settings: Mixing) -> Mixed:
    from undersong.tuning.mixing import Mixing as Mixed

    assert arm.modality is not None
    prompts = bench.prompts(bench.record.defending[settings.corpus], True, [arm.modality])
    if settings.refusal is not None:
        targets = [settings.refusal] * len(prompts)
    else:
        targets = targets_of([prompt.sample for prompt in prompts], settings.column)
    return Mixed(prompts, targets, settings.share)


def _watch(bench: Bench, arm: Arm, settings: Canary, model: AudioModel) -> Watch:
    """Asks in the modality that is trained on."""
    from undersong.tuning.canary import Watch

    assert arm.modality is not None
    harmful = bench.prompts(bench.record.defending[settings.harmful], True, [arm.modality])
    harmless = []
    if settings.harmless is not None:
        harmless = bench.prompts(bench.record.defending[settings.harmless], False, [arm.modality])
    sides = Sides(harmful, harmless)
    limits = {"jsr": settings.jsr}
    if settings.over_refusal is not None:
        limits["over_refusal"] = settings.over_refusal
    asking = bench.asking()
    return Watch(lambda: asking.rated(model, sides), limits, settings.every)
