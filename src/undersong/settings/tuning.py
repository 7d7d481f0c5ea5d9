"""Training settings of a study file: the key `tuning`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from undersong.settings.base import Modality, Seed, Share, StrictModel, check_distinct
from undersong.settings.defaults import (
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
from undersong.settings.presets import apply_preset
from undersong.suggestions import did_you_mean

MAX_SEED_COUNT = 1_000
MAX_STEPS = 10**8  # more would fill memory before the first, with the order of the samples


class SequentialSeeds(StrictModel):
    """Seeds that are added one at a time, until the contrast is decided (`seeds: {from: 3, to: 20}`).

    Six seeds at least are needed to show a difference; earlier looks can find it futile.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    first: int = Field(3, alias="from", ge=3, description="Number of seeds at the first look.")
    last: int = Field(20, alias="to", le=1_000, description="Largest number of seeds.")
    stop: Literal["shown", "futile", "shown|futile"] = Field(
        "shown|futile",
        description="shown: the confidence sequence leaves out 0. futile: it leaves out `smallest`, or more seeds "
        "would hardly show anything.",
    )
    contrast: Literal["closest-base", "random-base", "distant-base", "closest-random", "closest-distant"] = Field(
        "closest-base", description="Difference of rates that is looked at, as in `undersong synthesize`."
    )
    smallest: float = Field(0.1, gt=0, le=1, description="Smallest difference that would matter.")
    modality: Modality | None = Field(
        None, description="Modality of the prompts that are looked at. Default: the first of evaluation.modalities."
    )

    @model_validator(mode="after")
    def _check_order(self) -> SequentialSeeds:
        if self.last <= self.first:
            raise ValueError(f"to ({self.last}) is not above from ({self.first})")
        return self


class TuningSettings(StrictModel):
    """Hyper-parameters of fine-tuning, the same for every arm of a study."""

    preset: str | None = Field(None, description="Published values to start from; keys given here replace them.")
    modalities: tuple[Modality, ...] = Field(("audio", "text"), description="How the training prompts are given.")
    instruction: str | None = Field(
        None, description="Instruction, as text, of the spoken training prompts; typed ones get none, as published."
    )
    instruction_first: bool = Field(False, description="Put the training instruction before the speech.")
    seeds: tuple[Seed, ...] = Field(
        (0, 1, 2),
        description="Training seeds: one run of every arm for each. A number n is 0 to n - 1. {from: 3, to: 20}: added "
        "until the question is answered.",
    )
    sequential_seeds: SequentialSeeds | None = Field(
        None, description="Rule by which seeds are added; a study file gives it as `seeds`."
    )
    draws: tuple[Seed, ...] = Field(
        (0, 1, 2),
        description="Seeds of the selection draws, paired with `seeds`. Default: 0 to the number of seeds - 1.",
    )
    save_steps: tuple[int, ...] = Field(
        SAVE_STEPS, description="Steps at which the model is saved and evaluated; training ends at the last."
    )
    batch_size: int = Field(BATCH_SIZE, ge=1, description="Samples per step.")
    learning_rate: float = Field(LEARNING_RATE, gt=0, allow_inf_nan=False, description="Peak learning rate of AdamW.")
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
        return _expand_seeds(apply_preset(values, SAVE_STEPS)) if isinstance(values, dict) else values

    @model_serializer(mode="wrap")
    def _omit_unset_rule(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the rule out where there is none, so that results of studies without it keep their hash."""
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key != "sequential_seeds"}

    @model_validator(mode="after")
    def _check_consistency(self) -> TuningSettings:
        if len(self.seeds) != len(self.draws):
            raise ValueError(
                f"seeds ({len(self.seeds)}) and draws ({len(self.draws)}) are paired and need equal numbers; leave "
                "draws out, and there are as many"
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


def _expand_seeds(values: Any) -> Any:
    """Write out seeds and draws: a number n is 0 to n - 1, and draws that are not given are as many as the seeds.

    A rule that is given as `seeds` moves to its own key, with seeds and draws 0 to its largest number - 1.
    """
    if not isinstance(values, dict):
        return values
    for name in ("seeds", "draws"):
        if isinstance(count := values.get(name), int) and not isinstance(count, bool):
            if not 1 <= count <= MAX_SEED_COUNT:
                raise ValueError(f"{name}: {count} is no number of {name}; give 1 to {MAX_SEED_COUNT:,}, or a list")
            values = values | {name: tuple(range(count))}
    seeds = values.get("seeds")
    if isinstance(seeds, list | tuple):
        return {"draws": tuple(range(len(seeds)))} | values
    if not isinstance(seeds, dict):
        return values
    try:
        rule = SequentialSeeds.model_validate(values["seeds"])
    except ValidationError as error:
        raise ValueError(f"seeds{_rule_problem(error)}") from None
    numbers = tuple(range(rule.last))
    return {"draws": numbers} | values | {"seeds": numbers, "sequential_seeds": rule}


def _rule_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    path = "".join(f".{part}" for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in SequentialSeeds.model_fields.items()]
        return f"{path} is unknown{did_you_mean(str(problem['loc'][-1]), known) or '; known are ' + ', '.join(known)}"
    return f"{path}: {problem['msg'].removeprefix('Value error, ')}"
