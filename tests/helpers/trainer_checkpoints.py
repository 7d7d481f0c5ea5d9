"""Checkpoint folders as trainers write them, with a weight or two."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file


def write_adapter(folder: Path) -> Path:
    """A PEFT folder that is complete, and fits no model."""
    folder.mkdir(parents=True)
    save_file({"base_model.model.q.lora_A.weight": torch.zeros(4, 2)}, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    return folder
