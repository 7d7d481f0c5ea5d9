"""Checks of a user's adapter before a model is loaded: against the model by their configs, and whether its weights are
whole and change anything.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter_base, read_lora_config
from undersong.models.adapter_patterns import resolve_patterns
from undersong.models.decoder_weights import DECODER_WEIGHTS, check_decoder_base, is_decoder_folder
from undersong.models.families import network_class
from undersong.models.memory import meta_network
from undersong.models.refs import model_hash, resolve_model
from undersong.models.weights import read_tensors
from undersong.store.provenance import check_recorded_file
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

LORA_FACTOR = re.compile(r"(?P<path>.+)\.lora_(?:embedding_)?(?P<side>[AB])\b")


def check_adapter_config(model: str, folder: Path, allow_outside_decoder: bool) -> None:
    """Check that an adapter is a LoRA that can be taken off again, is of the model's class, and where it reaches.

    If `made_for.json` says of which files the adapter's base was, the model's files must be the same.

    Loading checks names, shapes and weights too, so what this cannot see is an error then.

    Args:
        model: Reference of the model.
        folder: PEFT folder, or a decoder that was tuned whole, which has no config.
        allow_outside_decoder: Whether the adapter may change encoder and projector.

    Raises:
        UndersongError: The config of the adapter or of the model rules it out.
    """
    if is_decoder_folder(folder):
        check_decoder_base(model, lambda: model_hash(model), folder)
        return
    config = read_lora_config(folder)
    source, options, family = resolve_model(model)
    check_adapter_base(model, network_class(family).__name__, lambda: model_hash(model), folder, config)
    if allow_outside_decoder:
        return
    network = meta_network(source, family, options)
    frozen = [path for path in _targeted_paths(network, config, folder) if path.startswith(tuple(family.frozen))]
    if frozen:
        part = next(path for path in family.frozen if frozen[0].startswith(path))
        raise UndersongError(
            f"Adapter {folder} changes {frozen[0]} ({len(frozen)} such modules), which lies in {part}; only an adapter "
            "of the language model's blocks can be looked into."
        )


def _targeted_paths(network: Any, config: Any, folder: Path) -> list[str]:
    """Paths of the linear layers that PEFT would wrap by this config."""
    import torch
    from peft.tuners.tuners_utils import check_target_module_exists

    if config.target_modules is None or config.target_modules == "all-linear":
        return []  # found by PEFT in the loaded network alone
    resolve_patterns(config, [path for path, _ in network.named_modules()], folder)
    return [
        path
        for path, module in network.named_modules()
        if isinstance(module, torch.nn.Linear) and check_target_module_exists(config, path)
    ]


def check_adapter_weights(folder: Path) -> None:
    """Check that the weights of a user's adapter are what was written, where undersong recorded that, or else that they
    are finite and change the model. Damage that leaves other numbers behind cannot be seen in a file without a record.

    Args:
        folder: PEFT folder, or a decoder that was tuned whole.

    Raises:
        UndersongError: A file is not what undersong wrote, cannot be read, or holds values as no training leaves them.
    """
    if is_decoder_folder(folder):
        if not check_recorded_file(folder / DECODER_WEIGHTS) and _is_all_zero(folder / DECODER_WEIGHTS):
            raise UndersongError(
                f"All weights of the decoder in {folder} are zero, as in a damaged file; copy it again, or train it "
                "again."
            )
        return
    check_recorded_file(folder / ADAPTER_CONFIG)
    if not check_recorded_file(folder / ADAPTER_WEIGHTS):  # what was recorded may well be an adapter of step 0
        _check_updates(folder)


def _check_updates(folder: Path) -> None:
    """Check the product B A of each module, which is what LoRA adds to a weight."""
    factors: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in read_tensors(folder / ADAPTER_WEIGHTS).items():
        if match := LORA_FACTOR.match(name):
            factors.setdefault(match["path"], {})[match["side"]] = tensor
    is_set = {path: {side: bool(tensor.any()) for side, tensor in pair.items()} for path, pair in factors.items()}
    if is_set and not any(all(sides.values()) for sides in is_set.values()):
        raise UndersongError(
            f"Adapter {folder} changes nothing: the updates of its modules ({len(is_set)}) are all zero, as in a "
            "damaged file or before the first step of a training; copy it again, or give a trained one."
        )
    # PEFT leaves both zero in a mixture of adapters, but no training moves B while A is zero.
    if damaged := [path for path, sides in is_set.items() if sides.get("B") and not sides.get("A", True)]:
        raise UndersongError(
            f"Adapter {folder} is damaged: lora_A of {damaged[0]} is all zeros and its lora_B is not "
            f"({len(damaged)} such modules); copy it again, or train it again."
        )


def _is_all_zero(file: Path) -> bool:
    """Whether every tensor is zero, without reading on after the first that is not."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            return not any(bool(tensors.get_tensor(name).any()) for name in tensors.keys())  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        return False  # `load_decoder` says what is wrong with it
