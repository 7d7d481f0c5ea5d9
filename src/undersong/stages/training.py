"""Training of one arm at one seed, and its adapter as an artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.settings.tuning import TuningSettings
from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES, encodable_samples
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Inputs
from undersong.types import Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressCallback
    from undersong.models.audio_lm import AudioModel
    from undersong.proximity.selection import Selection
    from undersong.tuning.canary import CanaryCheck
    from undersong.tuning.safety_mixing import SafetyMixing
    from undersong.tuning.train import TuningResult


def select_by_id(samples: Sequence[Sample], quarantined: Sequence[Quarantined], ids: Sequence[str]) -> list[Sample]:
    """Samples with these ids, in the order of `ids`.

    Raises:
        UndersongError: A sample cannot be trained on.
    """
    by_id = {sample.id: sample for sample in samples}
    if lost := [i for i in ids if i not in by_id]:
        why = next((item.reason for item in quarantined if item.id == lost[0]), "it is not in the corpus")
        raise UndersongError(
            f"Selected sample {lost[0]} cannot be used ({why}; {len(lost)} such in all); fix it, or select again."
        )
    return [by_id[i] for i in ids]


def training_targets(samples: Sequence[Sample], target: str) -> list[str]:
    """Target reply of each sample, from the column `target`.

    Raises:
        UndersongError: A sample has no value in this column.
    """
    from undersong.corpora.column_names import columns_sentence

    targets = [sample.column(target) or "" for sample in samples]
    if missing_ids := [sample.id for sample, reply in zip(samples, targets) if not reply]:
        raise UndersongError(
            f"Sample {missing_ids[0]} has no reply in the column {target!r} ({len(missing_ids)} such in all); "
            f"{columns_sentence(samples)}; add it, or name another column as target."
        )
    return targets


def training_recipe(tuning: TuningSettings) -> dict[str, Any]:
    """Hyper-parameters of a study's tuning, which all its arms share."""
    recipe = tuning.model_dump(exclude={"modalities", "seeds", "sequential_seeds", "draws", "target_column", "preset"})
    # These are in the cache key only if they are set.
    optional = {"silent_frame_share": None, "instruction": None, "instruction_first": False}
    return {name: value for name, value in recipe.items() if name not in optional or value != optional[name]}


def training_instruction(recipe: Mapping[str, Any], modality: str) -> dict[str, Any]:
    """Instruction of the training prompts and its place, as keyword arguments of `make_prompts`.

    Typed prompts get none: the published instruction speaks of the audio, and was left out with it.
    """
    if modality != "audio":
        return {}
    return {name: recipe[name] for name in ("instruction", "instruction_first") if name in recipe}


def train_on_samples(
    model: AudioModel,
    samples: Sequence[Sample],
    modality: str,
    system_text: str | None,
    target: str,
    recipe: dict[str, Any],
    seed: int,
    save: Callable[[str, Callable[[Path], None]], None],
    resume: Path | None = None,
    mixing: SafetyMixing | None = None,
    watch: CanaryCheck | None = None,
    start: Path | None = None,
    report: ProgressCallback | None = None,
) -> TuningResult:
    """Train LoRA on samples in one modality, to reply with their column `target`.

    Args:
        model: The model.
        samples: The samples.
        modality: Modality of the training prompts.
        system_text: Text of the system prompt.
        target: Column with the target replies.
        recipe: Hyper-parameters.
        seed: Training seed.
        save: Saves a folder under a name.
        resume: Folder with the state of an interrupted training.
        mixing: Safety samples to mix in.
        watch: Canary check that may stop the training.
        start: Adapter to start from.
        report: Receives the progress after each step.
    """
    from undersong.evaluation.prompts import make_prompts
    from undersong.tuning.config import LoraRecipe
    from undersong.tuning.train import finetune_decoder

    prompts = make_prompts(
        samples,
        set_name="train",
        harmful=False,
        modality=modality,
        system="train",
        system_text=system_text,
        **training_instruction(recipe, modality),
    )
    return finetune_decoder(
        model,
        prompts,
        training_targets(samples, target),
        LoraRecipe(**recipe),
        seed,
        save,
        resume,
        mixing,
        watch,
        start,
        report,
    )


@dataclass(frozen=True)
class StudyArm:
    """Run of a study: a base tuned on a selection in a modality at a seed; fields are None for the base itself."""

    model: str
    base_seed: int
    axis: str | None = None
    kind: str = "base"
    fraction: float | None = None
    modality: str | None = None
    seed: int | None = None
    draw: int | None = None
    selection: Selection | None = None
    harm_set: str = ""  # harm set that closeness is to
    rule: str = ""  # whole selection rule, if it has more than kind and fraction

    @property
    def run_key(self) -> tuple[int, int, int]:
        """Base, draw and seed of a tuned arm, by which runs are paired."""
        assert self.draw is not None
        assert self.seed is not None
        return self.base_seed, self.draw, self.seed

    @property
    def name(self) -> str:
        """`base`, or AXIS/KIND/FRACTION/MODALITY, shared by all draws and seeds; for a rule without the fraction."""
        if self.kind == "base":
            return "base"
        amount = "" if self.rule else f"/{self.fraction:g}"
        return f"{self.axis}/{self.kind}{amount}/{self.modality}"


@dataclass(frozen=True)
class TrainingExtras:
    """Training behavior that a defense adds.

    `config` and `inputs` enter the cache key; `make` returns keyword arguments of `train_on_samples` (`mixing`,
    `watch`, `start`).
    """

    config: dict[str, Any]
    inputs: dict[str, Artifact]
    features: tuple[Artifact, ...]
    make: Callable[[AudioModel], dict[str, Any]]


def train_adapter(
    ctx: RunContext,
    arm: StudyArm,
    pool: Corpus,
    features: Artifact,
    recipe: dict[str, Any],
    system_text: str | None,
    target: str,
    extras: TrainingExtras | None = None,
) -> Artifact:
    """Artifact with the LoRA adapter of an arm.

    Its key holds the selection's ids, so two arms with the same samples are one training. A canary may have stopped the
    training: the artifact then has the last safe step and those before it.

    Args:
        ctx: The run context.
        arm: The arm.
        pool: The pool.
        features: Audio features of the pool.
        recipe: Hyper-parameters.
        system_text: Text of the system prompt.
        target: Column with the target replies.
        extras: Training behavior that a defense adds.
    """
    from undersong.models.refs import model_hash

    assert arm.selection is not None, "the base is not tuned"
    assert arm.modality is not None
    assert arm.seed is not None
    selection, modality, seed = arm.selection, arm.modality, arm.seed

    def make(draft: Draft) -> None:
        from undersong.tuning.train import write_log

        def save(name: str, write: Callable[[Path], None]) -> None:
            if not draft.has(name):
                with draft.file(name) as folder:
                    write(folder)

        samples = select_by_id(pool.samples, [*pool.quarantined, *encodable_samples(pool, features)[1]], selection.ids)
        model = ctx.model(arm.model, [features, *(extras.features if extras else ())])
        state_folder, options = draft.path.with_suffix(".state"), extras.make(model) if extras else {}
        training_result = train_on_samples(
            model,
            samples,
            modality,
            system_text,
            target,
            recipe,
            seed,
            save,
            state_folder,
            report=ctx.watcher(f"training {arm.name} seed {seed}"),
            **options,
        )
        with draft.file("log.jsonl") as path:
            write_log(training_result, path)
        draft.note(
            frozen_before=training_result.frozen_before,
            frozen_after=training_result.frozen_after,
            device=ctx.loading.device_name,
        )
        if extras:
            draft.note(stopped=training_result.stop_step, watched=list(training_result.measurements))

    config = {
        "recipe": recipe,
        "modality": modality,
        "seed": seed,
        "system": system_text,
        "target": target,
        "loading": ctx.loading.cache_key,
    }
    inputs: Inputs = {
        "model": model_hash(arm.model),
        "pool": pool.artifact,
        "features": features,
        "ids": selection.ids_hash,
    }
    if extras:
        config, inputs = config | extras.config, {**inputs, **extras.inputs}
    return ctx.store.get_or_make("adapter", 1, config, inputs, make, seed=seed, packages=MODEL_PACKAGES)
