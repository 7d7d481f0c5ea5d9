"""Training arguments that keep one process on one device, which is the model's."""

from __future__ import annotations

import torch
from transformers import TrainingArguments

from undersong.tuning.distributed import world_size


class SingleDeviceArguments(TrainingArguments):
    """TrainingArguments of a process that trains on the model's device alone.

    The Trainer would move a model to the first GPU, and with several GPUs in sight replicate it by DataParallel, which
    multiplies the batch by their number.
    """

    _model_device: torch.device | None = None

    def stay_on(self, device: torch.device) -> None:
        """Train on this device. Under `accelerate launch` and `torchrun` each process has its own already."""
        if world_size() > 1 or device.type != "cuda":
            return
        self._model_device = device
        torch.cuda.set_device(device)  # accelerate takes the current one

    @property
    def n_gpu(self) -> int:
        """Number of GPUs that this process trains on: 1, or 0 on a CPU."""
        return min(1, int(super().n_gpu))

    @property
    def device(self) -> torch.device:
        """Device that the Trainer moves model and batches to."""
        default: torch.device = super().device
        return self._model_device or default
