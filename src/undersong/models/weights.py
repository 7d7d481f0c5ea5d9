"""A LoRA that a checkpoint publishes beside its weights, and that speech needs, made part of them on loading.

By hand and counted: `from_pretrained` passes such folders over without a word, and PEFT on the published patterns finds
either nothing or the audio encoder as well.  Knows files and linear layers; does not know our own adapters.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.types import UndersongError

LORA_B_NAME = re.compile(r"(layers\.\d+\.(?:self_attn|mlp)\.\w+)\.lora_B(?:\.\w+)?\.weight$")


def merge_published_lora(model: Any, source: str | Path, folder: str, options: Mapping[str, Any]) -> bool:
    """Adds scale x B A to the decoder's linear layers that the adapter names; False: the checkpoint has none.

    Folders that `save_pretrained` wrote have it merged already.  Errors: an adapter that does not fit every one of its
    layers.
    """
    from safetensors.torch import load_file
    from transformers.utils import cached_file

    settings, weights = (
        cached_file(str(source), f"{folder}/{name}", **options, _raise_exceptions_for_missing_entries=False)
        for name in ("adapter_config.json", "adapter_model.safetensors")
    )
    if settings is None and weights is None:
        return False
    if settings is None or weights is None:
        raise UndersongError(f"Of the adapter {folder} of {source} one file is missing; fetch both, or neither.")
    config, tensors = json.loads(Path(settings).read_text(encoding="utf-8")), load_file(weights)
    if not isinstance(config, dict) or config.get("use_dora") or not {"r", "lora_alpha"} <= config.keys():
        raise UndersongError(f"The adapter {folder} of {source} is no plain LoRA; take it out.")
    scale = config["lora_alpha"] / (config["r"] ** 0.5 if config.get("use_rslora") else config["r"])
    module_paths = {key: match[1] for key in tensors if (match := LORA_B_NAME.search(key))}
    if 2 * len(module_paths) != len(tensors):
        raise UndersongError(f"The adapter {folder} of {source} is not LoRA on the decoder alone; take it out.")
    decoder = model.get_decoder()
    for key, path in module_paths.items():
        weight = decoder.get_submodule(path).weight
        delta = scale * (tensors[key].float() @ tensors[key.replace("lora_B", "lora_A")].float())
        weight.data += delta.to(weight.device, weight.dtype)
    return True
