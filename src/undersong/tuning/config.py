"""Hyper-parameters of one fine-tuning run (`LoraRecipe`)."""

from __future__ import annotations

from dataclasses import dataclass

from undersong.tuning.distributed import world_size
from undersong.types import UndersongError

METHODS = ("lora", "full")
PUBLISHED_BETAS = (0.5, 2.0, 2.0, 2.0, 2.0, 0.1)  # Qi et al. 2024: token 1, tokens 2 to 5, later ones


@dataclass(frozen=True)
class LoraRecipe:
    """Hyper-parameters of one arm. The adapter is saved at each of `steps` (optimizer steps): a run is a curve."""

    steps: tuple[int, ...] = (20, 40)
    batch: int = 8
    learning_rate: float = 5e-4
    schedule: str = "constant_with_warmup"  # a transformers scheduler name
    warmup: int = 5  # steps
    weight_decay: float = 0.0
    clip: float = 1.0  # largest gradient norm
    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: tuple[str, ...] | None = None  # full module paths; None: every linear layer of the decoder's blocks
    micro_batch: int | None = None  # samples in memory at a time; a step still uses the whole `batch`
    method: str = "lora"  # lora | full (all blocks of the decoder and its last norm, without an adapter)
    validation: float = 0.0  # share of the samples, by whole groups, that is held out and measured at each of `steps`
    checkpointing: bool = False  # recompute activations in the backward pass: slower, with far less memory
    thin: float | None = None  # share of silent audio frames that is kept (frame_pruning.py); None: all frames
    betas: tuple[float, ...] | None = None  # per answer token, the last for all later ones (constrained.py); None: off

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UndersongError(f"There is no method {self.method!r} of tuning; take one of {', '.join(METHODS)}.")
        if self.micro_batch is not None and (self.micro_batch < 1 or self.batch % self.micro_batch):
            raise UndersongError(
                f"A batch of {self.batch} cannot be taken {self.micro_batch} at a time; give a divisor as micro_batch."
            )
        if self.thin is not None and not 0 <= self.thin <= 1:
            raise UndersongError(f"thin is a share of frames, not {self.thin:g}; give 0 to 1.")
        if self.betas is not None and self.method != "lora":
            raise UndersongError(
                f"Method {self.method} cannot be constrained, because it keeps no base to compare with; take lora, or "
                "leave out the betas."
            )

    @property
    def device_batch_size(self) -> int:
        """Samples per process in memory. Raises UndersongError if the processes cannot share a batch evenly."""
        micro = self.micro_batch or max(1, self.batch // world_size())
        if self.batch % (micro * world_size()):
            raise UndersongError(
                f"A batch of {self.batch} cannot be taken by {world_size()} processes {micro} at a time; give a batch "
                "that they divide, or another micro_batch."
            )
        return micro
