"""Check of an adapter against a model by their configs alone, before any weight is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from undersong.models.adapter_files import check_adapter_base, read_lora_config
from undersong.models.adapter_patterns import resolve_patterns
from undersong.models.decoder_weights import check_decoder_base, is_decoder_folder
from undersong.models.families import network_class
from undersong.models.memory import meta_network
from undersong.models.refs import model_hash, resolve_model
from undersong.types import UndersongError


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
