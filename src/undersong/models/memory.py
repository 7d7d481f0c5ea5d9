"""Memory for a model's weights, computed on the meta device from its config before any weight is read.

Prompts and gradients are not counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch

from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.families import Family
from undersong.models.load_options import DTYPES, QUANTIZED, LoadOptions
from undersong.types import UndersongError

GIB = 2**30


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a network: `linear` in the decoder's blocks, which can be quantized, and all `other` ones.

    `float32` of them keep that dtype always. `linear_widths` is the sum of the input and output widths of the linear
    layers. `frozen` are those of encoder and projector.
    """

    linear: int
    other: int
    float32: int = 0
    linear_widths: int = 0
    frozen: int = 0

    def host_bytes(self, loading: LoadOptions) -> int:
        """Bytes of main memory that loading to another device needs: of the audio modules, which a family's own loader
        reads there first. On a device other than a CUDA one, all weights take that way.
        """
        if torch.device(loading.device).type == "cuda":
            return self.frozen * DTYPES["float32"]
        return 0 if loading.device == "cpu" else self.num_bytes(loading)

    def num_bytes(self, loading: LoadOptions) -> int:
        """Bytes of the weights with these options."""
        bytes_per_value = DTYPES[loading.dtype]
        return round(
            self.linear * (QUANTIZED[loading.quantize] if loading.quantize else bytes_per_value)
            + self.other * bytes_per_value
            + self.float32 * (DTYPES["float32"] - bytes_per_value)
        )

    def adapter_bytes(self, rank: int) -> int:
        """Bytes of a LoRA adapter on all linear layers of the decoder's blocks, which PEFT keeps in float32."""
        return DTYPES["float32"] * rank * self.linear_widths


def count_parameters(source: str | Path, family: Family, options: Mapping[str, Any]) -> ParameterCounts:
    """Count parameters without reading a weight. Raises UndersongError for a config of another network."""
    return count_network(meta_network(source, family, options), family)


def meta_network(source: str | Path, family: Family, options: Mapping[str, Any]) -> Any:
    """Build a checkpoint's network on the meta device, without weights.

    Raises UndersongError for a config of another network.
    """
    from undersong.models.families import import_object, network_class
    from undersong.models.network_config import load_config
    from undersong.models.weights import LOADING_ERRORS

    config = load_config(source, family, str(source), options)
    try:
        with torch.device("meta"):
            if family.meta_loader:
                return import_object(family.meta_loader)(source, **options)
            return network_class(family)(config)
    except LOADING_ERRORS as error:
        reason = describe_loading_error(error)
        raise UndersongError(f"The config.json of {source} makes no {family.name} ({reason}); give its own.") from error


def count_network(model: Any, family: Family) -> ParameterCounts:
    """Count the parameters of a family's network, tied weights once."""
    layers = [module for module in model.get_decoder().layers.modules() if isinstance(module, torch.nn.Linear)]
    linear = sum(layer.weight.numel() for layer in layers)
    # By id, so that tied weights count once.
    unique_sizes = {id(parameter): parameter.numel() for parameter in (*model.parameters(), *model.buffers())}
    float32 = sum(parameter.numel() for path in family.float32 for parameter in model.get_submodule(path).parameters())
    linear_widths = sum(layer.in_features + layer.out_features for layer in layers)
    frozen_modules = [model.get_submodule(path) for path in family.frozen]
    frozen = sum(parameter.numel() for module in frozen_modules for parameter in module.parameters())
    return ParameterCounts(linear, sum(unique_sizes.values()) - linear, float32, linear_widths, frozen)


def available_memory(device: str) -> int:
    """Free bytes on a device, or in main memory. What PyTorch keeps reserved and does not use is free too."""
    if torch.device(device).type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + cached
    return int(psutil.virtual_memory().available)


def check_memory(
    ref: str, source: str | Path, options: Mapping[str, Any], family: Family, loading: LoadOptions
) -> None:
    """Raise UndersongError if the weights do not fit, with options that would. With a device map transformers decides.

    Args:
        ref: Name of the model in the message.
        source: Folder or Hugging Face id.
        options: Options of `from_pretrained`.
        family: Family of the model.
        loading: Device, dtype and quantization.
    """
    if loading.device_map:
        return
    weights, free = count_parameters(source, family, options), available_memory(loading.device)
    if weights.num_bytes(loading) > free:
        requirement = _requirement(ref, weights, loading, free)
        raise UndersongError(f"{requirement}; {_alternatives(weights, loading, free)}.")
    needed, host = weights.host_bytes(loading), available_memory("cpu")
    if needed > host:
        raise UndersongError(
            f"Loading {ref} to {loading.device} needs {needed / GIB:.1f} GiB of main memory and {host / GIB:.1f} GiB "
            "are free; end other programs, or take a machine with more."
        )


def memory_summary(
    ref: str, source: str | Path, options: Mapping[str, Any], family: Family, loading: LoadOptions
) -> str:
    """Describe needed and available memory in one sentence; if the weights do not fit, with options that would.

    Args:
        ref: Name of the model in the message.
        source: Folder or Hugging Face id.
        options: Options of `from_pretrained`.
        family: Family of the model.
        loading: Device, dtype and quantization.
    """
    weights, free = count_parameters(source, family, options), available_memory(loading.device)
    requirement = _requirement(ref, weights, loading, free)
    fits = weights.num_bytes(loading) <= free or loading.device_map
    return f"{requirement}." if fits else f"{requirement}: too little; {_alternatives(weights, loading, free)}."


def _requirement(ref: str, weights: ParameterCounts, loading: LoadOptions, free: int) -> str:
    return (
        f"{ref} needs {weights.num_bytes(loading) / GIB:.1f} GiB for its weights ({_precision_name(loading)}) and "
        f"{loading.device} has {free / GIB:.1f} GiB free"
    )


def _alternatives(weights: ParameterCounts, loading: LoadOptions, free: int) -> str:
    options = [replace(loading, dtype="bfloat16", quantize=None)]
    options += [replace(loading, dtype="bfloat16", quantize=bits) for bits in (8, 4)]
    fitting = [
        option
        for option in options
        if weights.num_bytes(option) <= free and weights.num_bytes(option) < weights.num_bytes(loading)
    ]
    suggestions = [
        f"{_precision_name(option)} would need {weights.num_bytes(option) / GIB:.1f} GiB" for option in fitting
    ]
    return "; ".join(suggestions) or "take a larger machine, or spread it with --device-map auto"


def _precision_name(loading: LoadOptions) -> str:
    return loading.dtype if loading.quantize is None else f"--quantize {loading.quantize}"
