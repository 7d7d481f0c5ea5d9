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

    from undersong.models.adapter import AudioModel

IN_LAYER = re.compile(r"\.layers\.(\d+)\.(?:.*\.)?(\w+)$")


def parts_of(model: AudioModel) -> dict[str, list[LoraLayer]]:
    """Name of a part -> its LoRA layers: `layer 3` (the third), `q_proj`, `first half`, `second half`.

    Raises UndersongError where none is, or where a LoRA layer is not in a block of the decoder.
    """
    from peft.tuners.lora import LoraLayer

    found: dict[tuple[int, str], list[LoraLayer]] = {}
    for name, module in model.model.named_modules():
        if isinstance(module, LoraLayer):
            place = IN_LAYER.search(name)
            if place is None:
                raise UndersongError(f"LoRA on {name} is in no block of the decoder; it cannot be taken apart.")
            found.setdefault((int(place[1]), place[2]), []).append(module)
    if not found:
        raise UndersongError(f"{model.name} wears no LoRA to take apart; put one on (a decoder tuned whole has none).")
    parts: dict[str, list[LoraLayer]] = {f"layer {at + 1}": [] for at, _ in sorted(found)}
    parts |= {kind: [] for kind in sorted({kind for _, kind in found})} | {"first half": [], "second half": []}
    for (at, kind), modules in found.items():
        half = "first half" if at < model.layers / 2 else "second half"
        for name in (f"layer {at + 1}", kind, half):
            parts[name] += modules
    return {name: modules for name, modules in parts.items() if modules}


@contextmanager
def without(modules: Sequence[LoraLayer]) -> Iterator[None]:
    """These LoRA layers add nothing; afterwards they add what they did."""
    before = [dict(module.scaling) for module in modules]
    try:
        for module in modules:
            for adapter in module.scaling:
                module.scaling[adapter] = 0.0
        yield
    finally:
        for module, scaling in zip(modules, before):
            module.scaling.update(scaling)
