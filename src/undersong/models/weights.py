"""Weights of a network: reading safetensors completely or not at all, merging a published LoRA, and hashing modules to
prove that they did not change.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from re import Pattern
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import nn

from undersong.escaping import describe_error
from undersong.models.hub_files import fetch_file, hub_errors
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch


LOADING_ERRORS = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError,
    StrictDataclassError,
    AssertionError, ArithmeticError,  # of modules and extractors, for configs of impossible sizes
)  # fmt: skip


def first_non_finite(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """Name of the first tensor that holds NaN or an infinity; None if there is none."""
    return next((name for name, value in tensors if not value.isfinite().all()), None)


def read_tensors(file: Path) -> dict[str, torch.Tensor]:
    """Read all tensors of a safetensors file, by name.

    Raises UndersongError with the folder for a file that is missing, truncated or damaged, and for a tensor that is not
    finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(file)
    except (SafetensorError, OSError) as error:
        raise UndersongError(
            f"{file.name} in {file.parent} cannot be read ({error}); copy it again, or train it again."
        ) from error
    if non_finite := first_non_finite(tensors.items()):
        raise UndersongError(
            f"{non_finite} in {file.parent} is not finite, so its training diverged; train it again at a lower "
            "learning rate."
        )
    return tensors


LORA_B_NAME = re.compile(r"(layers\.\d+\.(?:self_attn|mlp)\.\w+)\.lora_B(?:\.\w+)?\.weight$")


def merge_published_lora(model: Any, source: str | Path, folder: str, options: Mapping[str, Any]) -> bool:
    """Add scale * B A to the decoder's linear layers that a checkpoint's adapter names; False if it has no adapter.

    Folders written by `save_pretrained` have it merged already.

    Args:
        model: The network.
        source: Folder or Hugging Face id of the checkpoint.
        folder: Subfolder of the adapter.
        options: Options for the hub, such as revision.

    Raises:
        UndersongError: An adapter that does not fit every one of its layers, or a hub that does not answer.
    """
    from safetensors.torch import load_file

    try:
        settings, weights = (
            fetch_file(source, f"{folder}/{name}", options)
            for name in ("adapter_config.json", "adapter_model.safetensors")
        )
    except hub_errors() as error:
        raise UndersongError(
            f"The adapter {folder} of {source} cannot be fetched ({describe_error(error)}); check the network."
        ) from error
    if settings is None and weights is None:
        return False
    if settings is None or weights is None:
        raise UndersongError(f"One file of the adapter {folder} of {source} is missing; fetch both, or neither.")
    config, tensors = json.loads(settings.read_text(encoding="utf-8")), load_file(weights)
    if not isinstance(config, dict) or config.get("use_dora") or not {"r", "lora_alpha"} <= config.keys():
        raise UndersongError(f"The adapter {folder} of {source} is not a plain LoRA; remove it.")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    module_paths = published_lora_paths(tensors, f"The adapter {folder} of {source}")
    decoder = model.get_decoder()
    for key, path in module_paths.items():
        weight = decoder.get_submodule(path).weight
        delta = scale * (tensors[key].float() @ tensors[key.replace("lora_B", "lora_A")].float())
        weight.data += delta.to(weight.device, weight.dtype)
    return True


def published_lora_paths(names: Collection[str], adapter: str) -> dict[str, str]:
    """Map the names of a published LoRA's B tensors to paths in the decoder.

    `adapter` names it in errors. Raises UndersongError if it has other tensors than pairs of A and B there.
    """
    module_paths = {name: match[1] for name in names if (match := LORA_B_NAME.search(name))}
    if 2 * len(module_paths) != len(names) or any(
        name.replace("lora_B", "lora_A") not in names for name in module_paths
    ):
        raise UndersongError(f"{adapter} is not LoRA on the decoder alone; remove it.")
    return module_paths


def module_hashes(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """Map `path/parameters` and `path/buffers` to SHA-256 over names, dtypes, shapes and raw bytes.

    Buffers are hashed too: a BatchNorm left in training mode drifts although its weights are frozen. LoRA wrappers do
    not reach encoder or projector, so names are the same before and after.
    """
    hashes = {}
    for path, module in modules.items():
        for kind, tensors in (("parameters", module.named_parameters()), ("buffers", module.named_buffers())):
            digest = hashlib.sha256()
            for name, tensor in sorted(tensors):
                value = tensor.detach().cpu().contiguous()
                digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
            hashes[f"{path}/{kind}"] = digest.hexdigest()
    return hashes


@dataclass(frozen=True)
class WeightPart:
    """A network that is loaded from one set of safetensors files.

    `prefix` stands before its names in reports. `key_mapping` is that of `from_pretrained`. Names that match `unused`
    may be left over.
    """

    network_class: Any
    config: Any
    source: str | Path
    options: Mapping[str, Any]
    subfolder: str = ""
    prefix: str = ""
    key_mapping: Mapping[str, str] | None = None
    unused: Pattern[str] | None = None
