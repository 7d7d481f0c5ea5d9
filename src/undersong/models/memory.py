"""How much memory a model's weights need, known before they are read, and whether it is there.

Counted on torch's meta device from the config alone.  What prompts and gradients need comes on top and is not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from undersong.models.family import Family
from undersong.models.loading import DTYPES, QUANTIZED, Loading
from undersong.types import UndersongError

GIB = 2**30


@dataclass(frozen=True)
class Weights:
    """Numbers a network holds: in the linear layers of its decoder's blocks, which can be quantized, and elsewhere;
    `single` of them are in float32 whatever the dtype.  `edges`: the widths in and out of those layers together."""

    linear: int
    other: int
    single: int = 0
    edges: int = 0

    def bytes(self, loading: Loading) -> int:
        """What they take as `loading` says."""
        each = DTYPES[loading.dtype]
        return round(
            self.linear * (QUANTIZED[loading.quantize] if loading.quantize else each)
            + self.other * each
            + self.single * (DTYPES["float32"] - each)
        )

    def adapter_bytes(self, rank: int) -> int:
        """Of a LoRA adapter on all linear layers of the decoder's blocks, which PEFT keeps in float32."""
        return DTYPES["float32"] * rank * self.edges


def weights_of(source: str | Path, family: Family, options: Mapping[str, Any]) -> Weights:
    """Counted without reading a weight.  Errors: a config that does not make the family's network."""
    from undersong.models.load import UNREADABLE, network_class
    from undersong.models.processor import named

    try:
        with torch.device("meta"):
            if family.sketch:
                model = named(family.sketch)(source, **options)
            else:
                model_class = network_class(family)
                model = model_class(model_class.config_class.from_pretrained(source, **options))
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UndersongError(f"The config of {source} makes no {family.name} ({reason}); give its own.") from error
    layers = [m for m in model.get_decoder().layers.modules() if isinstance(m, torch.nn.Linear)]
    linear = sum(layer.weight.numel() for layer in layers)
    shared = {id(p): p.numel() for p in (*model.parameters(), *model.buffers())}  # tied weights are held once
    single = sum(p.numel() for path in family.float32 for p in model.get_submodule(path).parameters())
    edges = sum(layer.in_features + layer.out_features for layer in layers)
    return Weights(linear, sum(shared.values()) - linear, single, edges)


def available(device: str) -> int:
    """Bytes free on a device, or in memory."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def check_memory(ref: str, source: str | Path, options: Mapping[str, Any], family: Family, loading: Loading) -> None:
    """UndersongError where the weights do not fit, which says what would.  With a device map transformers decides."""
    if loading.device_map:
        return
    weights, free = weights_of(source, family, options), available(loading.device)
    if weights.bytes(loading) > free:
        line = _line(ref, weights, loading, free)
        raise UndersongError(f"{line}; {_hint(weights, loading, free)}.")


def memory_line(ref: str, source: str | Path, options: Mapping[str, Any], family: Family, loading: Loading) -> str:
    """What a model's weights need and what there is, in one sentence; where they do not fit, with what would."""
    weights, free = weights_of(source, family, options), available(loading.device)
    line = _line(ref, weights, loading, free)
    fits = weights.bytes(loading) <= free or loading.device_map
    return f"{line}." if fits else f"{line}: too little; {_hint(weights, loading, free)}."


def _line(ref: str, weights: Weights, loading: Loading, free: int) -> str:
    return (
        f"{ref} needs {weights.bytes(loading) / GIB:.1f} GiB for its weights ({_said(loading)}) and {loading.device} "
        f"has {free / GIB:.1f} GiB free"
    )


def _hint(weights: Weights, loading: Loading, free: int) -> str:
    ways = [replace(loading, dtype="bfloat16", quantize=None)]
    ways += [replace(loading, dtype="bfloat16", quantize=bits) for bits in (8, 4)]
    fitting = [way for way in ways if weights.bytes(way) <= free and weights.bytes(way) < weights.bytes(loading)]
    said = [f"{_said(way)} would need {weights.bytes(way) / GIB:.1f} GiB" for way in fitting]
    return "; ".join(said) or "take a larger machine, or spread it with --device-map auto"


def _said(loading: Loading) -> str:
    return loading.dtype if loading.quantize is None else f"--quantize {loading.quantize}"
