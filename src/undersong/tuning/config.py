"""Hyper-parameters of one fine-tuning run (`LoraRecipe`)."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from undersong.settings import defaults
from undersong.tuning.distributed import world_size
from undersong.types import UndersongError

METHODS = ("lora", "full")
PUBLISHED_BETAS = (0.5, 2.0, 2.0, 2.0, 2.0, 0.1)  # Qi et al. 2024: token 1, tokens 2 to 5, later ones


@dataclass(frozen=True)
class LoraRecipe:
    """Hyper-parameters of one arm. The adapter is saved at each of `steps` (optimizer steps): a run is a curve."""

    save_steps: tuple[int, ...] = defaults.SAVE_STEPS
    batch_size: int = defaults.BATCH_SIZE
    learning_rate: float = defaults.LEARNING_RATE
    learning_rate_schedule: str = defaults.LEARNING_RATE_SCHEDULE  # a transformers scheduler name
    warmup_steps: int = defaults.WARMUP_STEPS
    weight_decay: float = 0.0
    max_grad_norm: float = defaults.MAX_GRAD_NORM
    lora_rank: int = defaults.LORA_RANK
    lora_alpha: int = defaults.LORA_ALPHA
    lora_dropout: float = 0.0
    targets: tuple[str, ...] | None = None  # full module paths; None: every linear layer of the decoder's blocks
    micro_batch_size: int | None = None  # samples in memory at a time; a step still uses the whole `batch`
    method: str = "lora"  # lora | full (all blocks of the decoder and its last norm, without an adapter)
    validation_share: float = (
        0.0  # share of the samples, by whole groups, that is held out and measured at each of `steps`
    )
    gradient_checkpointing: bool = False  # recompute activations in the backward pass: slower, with far less memory
    silent_frame_share: float | None = (
        None  # share of silent audio frames that is kept (frame_pruning.py); None: all frames
    )
    instruction: str | None = None  # of the spoken training prompts
    instruction_first: bool = False  # before the speech instead of after it
    betas: tuple[float, ...] | None = None  # per answer token, the last for all later ones (constrained.py); None: off

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UndersongError(f"There is no method {self.method!r} of tuning; take one of {', '.join(METHODS)}.")
        if not 0 < self.learning_rate < inf:
            raise UndersongError(
                f"A learning rate is a finite number above 0, and {self.learning_rate:g} is not; give another."
            )
        if self.micro_batch_size is not None and (self.micro_batch_size < 1 or self.batch_size % self.micro_batch_size):
            raise UndersongError(
                f"A batch of {self.batch_size} cannot be taken {self.micro_batch_size} at a time; give a divisor as "
                "micro_batch_size."
            )
        if self.silent_frame_share is not None and not 0 <= self.silent_frame_share <= 1:
            raise UndersongError(
                f"silent_frame_share is a share of frames, not {self.silent_frame_share:g}; give 0 to 1."
            )
        if self.betas is not None and self.method != "lora":
            raise UndersongError(
                f"Method {self.method} cannot be constrained, because it keeps no base to compare with; take lora, or "
                "leave out the betas."
            )

    @property
    def device_batch_size(self) -> int:
        """Samples per process in memory. Raises UndersongError if the processes cannot share a batch evenly."""
        micro = self.micro_batch_size or max(1, self.batch_size // world_size())
        if self.batch_size % (micro * world_size()):
            raise UndersongError(
                f"A batch of {self.batch_size} cannot be taken by {world_size()} processes {micro} at a time; "
                "give a batch "
                "that they divide, or another micro_batch_size."
            )
        return micro
