"""Training settings of a study file: the key `tuning`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from undersong.study.base import Modality, Seed, Share, StrictModel, check_distinct
from undersong.study.defaults import (
    BATCH_SIZE,
    LEARNING_RATE,
    LEARNING_RATE_SCHEDULE,
    LORA_ALPHA,
    LORA_RANK,
    MAX_GRAD_NORM,
    SAVE_STEPS,
    TARGET_COLUMN,
    WARMUP_STEPS,
)
from undersong.study.presets import apply_preset

MAX_STEPS = 10**8  # more would fill memory before the first, with the order of the samples


class TuningSettings(StrictModel):
    """Hyper-parameters of fine-tuning, the same for every arm of a study."""

    preset: str | None = Field(None, description="Published values to start from; keys given here replace them.")
    modalities: tuple[Modality, ...] = Field(("audio", "text"), description="How the training prompts are given.")
    instruction: str | None = Field(
        None, description="Instruction, as text, of the spoken training prompts; typed ones get none, as published."
    )
    instruction_first: bool = Field(False, description="Put the training instruction before the speech.")
    seeds: tuple[Seed, ...] = Field((0, 1, 2), description="Training seeds: one run of every arm for each.")
    draws: tuple[Seed, ...] = Field((0, 1, 2), description="Seeds of the selection draws, paired with `seeds`.")
    save_steps: tuple[int, ...] = Field(
        SAVE_STEPS, description="Steps at which the model is saved and evaluated; training ends at the last."
    )
    batch_size: int = Field(BATCH_SIZE, ge=1, description="Samples per step.")
    learning_rate: float = Field(LEARNING_RATE, gt=0, description="Peak learning rate of AdamW.")
    learning_rate_schedule: str = Field(
        LEARNING_RATE_SCHEDULE, description="Schedule of the learning rate, by its name in transformers."
    )
    warmup_steps: int = Field(WARMUP_STEPS, ge=0, description="Steps over which the learning rate rises to its peak.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float = Field(MAX_GRAD_NORM, gt=0, description="Largest norm of the gradient; above it is clipped.")
    method: Literal["lora", "full"] = Field(
        "lora", description="lora: an adapter. full: all blocks of the decoder, without an adapter."
    )
    lora_rank: int = Field(LORA_RANK, ge=1, description="Rank of the LoRA matrices.")
    lora_alpha: int = Field(LORA_ALPHA, ge=1, description="LoRA scales its update by lora_alpha / lora_rank.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout on the inputs of LoRA.")
    validation_share: Share = Field(
        0.0, ge=0, lt=1, description="Share of the samples held out, by whole groups; their loss is logged."
    )
    micro_batch_size: int | None = Field(
        None, ge=1, description="Samples in memory at a time; must divide `batch_size`. Results stay the same."
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: slower, with far less memory."
    )
    silent_frame_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of silent audio frames kept in training (mini only): faster, and the model learns less.",
    )
    target_column: str = Field(
        TARGET_COLUMN, description="Manifest column with the reply to learn; another column shifts the format."
    )

    @model_validator(mode="before")
    @classmethod
    def _apply_preset(cls, values: Any) -> Any:
        return apply_preset(values, SAVE_STEPS) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _check_consistency(self) -> TuningSettings:
        if len(self.seeds) != len(self.draws):
            raise ValueError(
                f"seeds ({len(self.seeds)}) and draws ({len(self.draws)}) are paired and need equal numbers"
            )
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"micro_batch_size ({self.micro_batch_size}) does not divide batch_size ({self.batch_size})"
            )
        check_distinct("seeds", self.seeds)
        check_distinct("modalities", self.modalities)
        if list(self.save_steps) != sorted(set(self.save_steps)) or not self.save_steps or self.save_steps[0] < 1:
            raise ValueError("save_steps are positive and rise")
        if self.save_steps[-1] > MAX_STEPS:
            raise ValueError(
                f"save_steps end at {self.save_steps[-1]:,}, and a training has at most {MAX_STEPS:,} steps"
            )
        return self
