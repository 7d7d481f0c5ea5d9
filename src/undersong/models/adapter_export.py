"""Export of a LoRA adapter under the module names that other tools give the same network.

`tune` saves an adapter with the names of the installed transformers. Published checkpoints, vLLM and ms-swift name the
same modules otherwise, and tools that still run transformers 4 name some of them differently again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.models.adapter_files import ADAPTER_CONFIG, ADAPTER_WEIGHTS, MADE_FOR, read_lora_config
from undersong.models.audio_lm import AudioModel
from undersong.models.decoder_weights import is_decoder_folder
from undersong.models.headers import read_shapes
from undersong.models.lora import LORA_TENSOR, network_tensor_names, use_adapter
from undersong.models.refs import model_folder, resolve_model, split_revision
from undersong.models.weight_conversion import network_module_path
from undersong.models.weights import read_tensors
from undersong.store.atomic import atomic_replacement
from undersong.suggestions import suggest
from undersong.types import UndersongError

NAMINGS = ("published", "transformers4")  # as the help text of `export-adapter` says
THINKER = "thinker."  # part of the published omni models that is loaded; transformers 4 trains it as a model of its own
# Settings that every version of PEFT since 0.6 and vLLM know; later ones make older versions warn.
CONFIG_KEYS = (
    "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "bias", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "modules_to_save", "use_rslora", "use_dora", "rank_pattern", "alpha_pattern",
)  # fmt: skip


def export_adapter(model: AudioModel, adapter: Path, out: Path, naming: str = "published") -> list[str]:
    """Write a copy of a LoRA adapter whose tensors have the names of another tool.

    Args:
        model: The model that the adapter belongs to, loaded from its checkpoint.
        adapter: PEFT folder, as `tune` or another tool wrote it.
        out: New PEFT folder; it must not exist.
        naming: "published" for the names in the published checkpoint, which vLLM and ms-swift use; "transformers4" for
            the module names of transformers 4.

    Returns:
        The module paths in the new adapter, sorted.

    Raises:
        UndersongError: An unknown naming, an existing folder, a full decoder, or an adapter that does not fit.
    """
    check_export(adapter, out, naming)
    with use_adapter(model, adapter, allow_outside_decoder=True):
        pass  # checks that it fits, tensor by tensor
    published = published_paths(model)
    if naming == "transformers4":
        published = {path: name.removeprefix(THINKER) for path, name in published.items()}
    paths = write_exported_adapter(model, adapter, out, published)
    return sorted(published[path] for path in paths)


def write_exported_adapter(model: AudioModel, adapter: Path, out: Path, published: Mapping[str, str]) -> list[str]:
    """Write a copy of an adapter under other names, and return the module paths in the network that it changes.

    Args:
        model: The model that the adapter belongs to; its weights are not used.
        adapter: PEFT folder.
        out: New PEFT folder.
        published: Module path in the network -> name in the copy.
    """
    tensors = read_tensors(adapter / ADAPTER_WEIGHTS)
    network_names = network_tensor_names(model.base, tensors)
    paths = sorted({match["path"] for name in network_names.values() if (match := LORA_TENSOR.match(name))})
    if unknown := [path for path in paths if path not in published]:
        raise UndersongError(
            f"Adapter {adapter} does not fit {model.name} (it has no {unknown[0]}); take its own base."
        )
    renamed = {_renamed_tensor(network_names[name], published): value for name, value in tensors.items()}
    config = json.loads((adapter / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    exported_config = {key: config[key] for key in CONFIG_KEYS if key in config}
    exported_config["target_modules"] = sorted(published[path] for path in paths)
    folder = model_folder(model.name)
    exported_config["base_model_name_or_path"] = split_revision(model.name)[0] if folder is None else str(folder)
    _write(adapter, out, renamed, exported_config)
    return paths


def check_export(adapter: Path, out: Path, naming: str) -> None:
    """Raise UndersongError for what can be known without the model: the naming, both folders, the kind of adapter."""
    if naming not in NAMINGS:
        raise UndersongError(f"There are no names called {naming!r}; {suggest(naming, NAMINGS)}.")
    if out.exists():
        raise UndersongError(f"{out} exists already; give a new folder.")
    if is_decoder_folder(adapter):
        raise UndersongError(f"{adapter} is a fully fine-tuned decoder; only a LoRA adapter can be exported.")
    if out.resolve().is_relative_to(adapter.resolve()):
        raise UndersongError(f"{out} lies in the adapter's own folder; give another.")
    config = read_lora_config(adapter)
    if config.rank_pattern or config.alpha_pattern:
        raise UndersongError(
            f"Adapter {adapter} has separate ranks or scales for modules (rank_pattern, alpha_pattern), which are "
            "patterns over names and cannot be translated; train it with one rank and one scale."
        )


def published_paths(model: AudioModel) -> dict[str, str]:
    """Map module paths of a network to their names in its checkpoint, whose headers are read."""
    source, options, _ = resolve_model(model.name)
    names = (
        name.removesuffix(".weight") for name in read_shapes(source, model.name, options) if name.endswith(".weight")
    )
    return {network_module_path(model.base, name): name for name in names}


def _renamed_tensor(name: str, published: Mapping[str, str]) -> str:
    match = LORA_TENSOR.match(name)
    return f"base_model.model.{published[match['path']]}.{match['rest']}" if match else name


def _write(adapter: Path, out: Path, tensors: dict[str, Any], config: dict[str, Any]) -> None:
    """Write the PEFT folder, with the training card and the note of the base."""
    from safetensors.torch import save_file

    with atomic_replacement(out) as folder:
        folder.mkdir()
        save_file(tensors, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        (folder / ADAPTER_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        for name in (MADE_FOR, "README.md"):
            if (adapter / name).is_file():
                shutil.copyfile(adapter / name, folder / name)
