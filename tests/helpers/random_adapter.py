"""A LoRA adapter with random weights, saved by PEFT alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import torch


def save_random_adapter(network: Any, targets: list[str], folder: Path) -> Path:
    """A PEFT folder as `tune` names it, with weights that do something."""
    wrapped = peft.get_peft_model(network, peft.LoraConfig(r=2, target_modules=targets))
    wrapped.peft_config["default"].target_modules = sorted(wrapped.base_model.targeted_module_names)
    torch.manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    wrapped.unload()
    return folder
