"""Which parts of an adapter carry the loss: LoRA of single layers, kinds of modules and halves, switched off.

A defense may need to take off no more than those.  Knows PEFT's LoRA layers; does not know what is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from undersong.types import UndersongError

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

    from undersong.models.audio_lm import AudioModel

LAYER_MODULE_PATTERN = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?(\w+)$")


def lora_parts(model: AudioModel) -> dict[str, list[LoraLayer]]:
    """Name of a part -> its LoRA layers: `layer 3` (the third), `q_proj`, `first half`, `second half`.

    Raises UndersongError where none is, or where a LoRA layer is not in a block of the decoder.
    """
    from peft.tuners.lora import LoraLayer

    modules_by_location: dict[tuple[int, str], list[LoraLayer]] = {}
    for name, module in model.model.named_modules():
        if isinstance(module, LoraLayer):
            match = LAYER_MODULE_PATTERN.search(name)
            if match is None:
                raise UndersongError(f"LoRA on {name} is in no block of the decoder; it cannot be taken apart.")
            modules_by_location.setdefault((int(match[1]), match[2]), []).append(module)
    if not modules_by_location:
        raise UndersongError(f"{model.name} wears no LoRA to take apart; put one on (a decoder tuned whole has none).")
    parts: dict[str, list[LoraLayer]] = {f"layer {layer + 1}": [] for layer, _ in sorted(modules_by_location)}
    parts |= {module_type: [] for module_type in sorted({kind for _, kind in modules_by_location})} | {
        "first half": [],
        "second half": [],
    }
    for (layer, module_type), modules in modules_by_location.items():
        half = "first half" if layer < model.layers / 2 else "second half"
        for name in (f"layer {layer + 1}", module_type, half):
            parts[name] += modules
    return {name: modules for name, modules in parts.items() if modules}


@contextmanager
def disable_lora_modules(modules: Sequence[LoraLayer]) -> Iterator[None]:
    """These LoRA layers add nothing; afterwards they add what they did."""
    scalings = [dict(module.scaling) for module in modules]
    try:
        for module in modules:
            for adapter in module.scaling:
                module.scaling[adapter] = 0.0
        yield
    finally:
        for module, scaling in zip(modules, scalings):
            module.scaling.update(scaling)
