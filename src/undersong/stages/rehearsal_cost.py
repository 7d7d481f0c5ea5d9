"""Cost of rehearsals before the first training: what is to be done, and the seconds that comparable artifacts of the
store took."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from undersong.encoders.batching import format_duration
from undersong.phrases import count
from undersong.stages.rehearsal import RehearsalStage


@dataclass(frozen=True)
class RehearsalSpeed:
    """Measured seconds per training step and per reference prompt; None for what no artifact of the store measured.

    Attributes:
        step: Seconds per step.
        prompt: Seconds per prompt.
        source: The artifacts that were measured, in words; empty if there are none.
    """

    step: float | None = None
    prompt: float | None = None
    source: str = ""


@dataclass(frozen=True)
class RehearsalCost:
    """Cost of all rehearsals of a command.

    Attributes:
        model: Reference of the base.
        device: The device.
        steps: Steps of each training.
        batch_size: Samples of each step.
        prompts: Reference prompts that are measured after each training.
        trainings: Number of trainings.
        missing: Number of those that the store does not have.
        measures_before: Whether the prompts are to be measured before training, too.
        store: Folder of the store that is kept; None if nothing is kept.
        speed: Speed of comparable artifacts.
    """

    model: str
    device: str
    steps: int
    batch_size: int
    prompts: int
    trainings: int
    missing: int
    measures_before: bool
    store: str | None
    speed: RehearsalSpeed

    @property
    def training_seconds(self) -> float | None:
        """Seconds of all trainings to do; None if no comparable artifact is known."""
        return None if self.speed.step is None else self.speed.step * self.steps * self.missing

    @property
    def measuring_seconds(self) -> float | None:
        """Seconds of all measurements of the reference to do; None if no comparable artifact is known."""
        return None if self.speed.prompt is None else self.speed.prompt * self.prompts * self._measurements

    @property
    def seconds(self) -> float | None:
        """Seconds of trainings and measurements; None if either is unknown."""
        training, measuring = self.training_seconds, self.measuring_seconds
        return None if training is None or measuring is None else training + measuring

    @property
    def lines(self) -> list[str]:
        """The cost in sentences."""
        samples = self.steps * self.batch_size
        lines = [
            f"Rehearsal: {count(self.trainings, 'training')} of {count(self.steps, 'step')} by {self.model}, "
            f"{self.batch_size} samples a step, and {count(self.prompts, 'reference prompt')} "
            "measured after each."
        ]
        if not self.missing:
            return [*lines, f"All of them are in the store {self.store}, so nothing is trained."]
        done = self.trainings - self.missing
        stored = f"{done} of them {'is' if done == 1 else 'are'} in the store {self.store}. " if done else ""
        before = ", those before training included" if self.measures_before else ""
        lines.append(
            f"{stored}To do: {count(self.missing, 'training')}, {count(self.missing * self.steps, 'step')}, "
            f"{self.missing * samples:,} samples to train on, {self._measurements * self.prompts:,} prompts to "
            f"measure{before}."
        )
        return [*lines, self._cost_sentence]

    @property
    def estimate(self) -> str:
        """The cost in a few words; empty if it is unknown."""
        return "" if self.seconds is None else f"{_format_seconds(self.seconds)} on {self.device}"

    @property
    def _measurements(self) -> int:
        return self.missing + self.measures_before

    @property
    def _cost_sentence(self) -> str:
        on_top = "Loading the model and computing audio features come on top."
        if self.seconds is not None:
            return f"Cost: {self.estimate}, as {self.speed.source} took. {on_top}"
        if self.training_seconds is not None:
            return (
                f"Cost: {_format_seconds(self.training_seconds)} on {self.device} for the trainings, as "
                f"{self.speed.source} took; that of measuring is unknown until the first rehearsal. {on_top}"
            )
        reason = (
            "without --store nothing is kept that could tell"
            if self.store is None
            else f"the store {self.store} has no training by {self.model} in batches of {self.batch_size} on "
            f"{self.device}"
        )
        keep = "with --store FOLDER and " if self.store is None else ""
        return (
            f"Cost: unknown, because {reason}. Start the command {keep}without --plan: after the first training it "
            "says how long the rest will take, and the store keeps what is done if you stop it."
        )


def _format_seconds(seconds: float) -> str:
    return f"about {format_duration(seconds)}" if seconds >= 1 else "less than a second"


def progress_line(name: str, done: int, total: int, seconds: float) -> str:
    """Line after a training: what was rehearsed, and how long the rest will take.

    Args:
        name: Set and seed of the training.
        done: Number of trainings done.
        total: Number of trainings.
        seconds: Seconds that they took.
    """
    left = f", about {format_duration(seconds / done * (total - done))} left" if done < total else ""
    return f"Rehearsed {name}: {done} of {total}{left}."


def rehearsal_cost(stage: RehearsalStage, trainings: int, missing: int, store: str | None) -> RehearsalCost:
    """Cost of rehearsals that share model, recipe and reference with this stage.

    Args:
        stage: Rehearsals of one pool.
        trainings: Number of trainings.
        missing: Number of those that the store does not have.
        store: Folder of the store that is kept, for messages; None if nothing is kept.
    """
    return RehearsalCost(
        model=stage.model,
        device=stage.ctx.loading.device_name,
        steps=stage.steps,
        batch_size=stage.recipe.batch_size,
        prompts=len(stage.reference.samples),
        trainings=trainings,
        missing=missing,
        measures_before=not stage.is_reference_stored(),
        store=store,
        speed=measured_speed(stage),
    )


def measured_speed(stage: RehearsalStage) -> RehearsalSpeed:
    """Mean speed of the rehearsals in the store, else of other trainings, by the same model on the same device.

    Only those count with the same modality, batch size and number format of the weights.
    """
    rehearsals = [notes for notes in _comparable(stage, "rehearsal") if {"seconds", "prompts"} <= {*notes}]
    if rehearsals:
        training, measuring = (
            sum(notes["seconds"][part] for notes in rehearsals) for part in ("training", "measuring")
        )
        return RehearsalSpeed(
            training / sum(notes["steps"] for notes in rehearsals),
            measuring / sum(notes["prompts"] for notes in rehearsals),
            f"{count(len(rehearsals), 'rehearsal')} in the store",
        )
    adapters = list(_comparable(stage, "adapter"))
    if not adapters:
        return RehearsalSpeed()
    seconds, steps = (sum(notes[name] for notes in adapters) for name in ("wall_seconds", "steps"))
    return RehearsalSpeed(seconds / steps, None, f"{count(len(adapters), 'training')} in the store")


def _comparable(stage: RehearsalStage, artifact_stage: str) -> Iterator[dict[str, Any]]:
    """Yield the notes of comparable artifacts, with their steps and wall seconds."""
    from undersong.models.refs import model_hash

    model, device = model_hash(stage.model), stage.ctx.loading.device_name
    for provenance in stage.store.provenances(artifact_stage):
        config, notes = provenance.get("config") or {}, provenance.get("notes") or {}
        recipe = config.get("recipe") or {}
        if (
            (provenance.get("inputs") or {}).get("model") == model
            and notes.get("device") == device
            and notes.get("stopped") is None  # by a canary, before its last step
            and config.get("loading") == stage.ctx.loading.cache_key
            and config.get("modality") == stage.settings.modality
            and recipe.get("batch_size") == stage.recipe.batch_size
            and recipe.get("method") == stage.recipe.method
        ):
            steps = config["steps"] if "steps" in config else max(recipe["save_steps"])
            yield {**notes, "steps": steps, "wall_seconds": provenance["wall_seconds"]}
