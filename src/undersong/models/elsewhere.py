"""Adapters as other tools and other versions of transformers name their modules.

Checkpoints keep the names they were published with, and transformers renames them as it loads; what was trained under
an older version, or around a whole Omni model, is named by the published ones.  Knows names; puts nothing on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from undersong.types import UndersongError

# base_model.model.PATH.lora_A.weight, lora_B, lora_embedding_A, lora_magnitude_vector
LORA_TENSOR = re.compile(r"^base_model\.model\.(?P<path>.+?)\.(?P<rest>lora_\w+(\..+)?)$")


def network_tensor_names(base: Any, names: Iterable[str]) -> dict[str, str]:
    """Name in the file -> name in this network; a name that is here already, or nowhere, stays as it is."""
    module_paths = {path for path, _ in base.named_modules()}
    matches = {name: LORA_TENSOR.match(name) for name in names}
    network_names = {name: name for name in matches}
    for name, match in matches.items():
        if (
            match is not None
            and match["path"] not in module_paths
            and (path := _network_path(base, match["path"])) in module_paths
        ):
            network_names[name] = f"base_model.model.{path}.{match['rest']}"
    return network_names


def _network_path(base: Any, path: str) -> str:
    """A module's path as transformers would rename a published checkpoint's."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [
        conversion for conversion in get_model_conversion_mapping(base) if isinstance(conversion, WeightRenaming)
    ]
    return rename_source_key(f"{path}.weight", renamings, [])[0].removesuffix(".weight")


def set_target_paths(config: Any, names: Iterable[str], folder: Path) -> None:
    """Makes a config name its modules by the full paths of the tensors, for names or a pattern that no longer fit.

    Errors: ranks or scales by module, which are patterns over the names that are gone.
    """
    if config.rank_pattern or config.alpha_pattern:
        raise UndersongError(
            f"Adapter {folder} has ranks or scales of its own for modules whose names have changed since; save it "
            "again with the transformers that is installed."
        )
    config.target_modules = sorted({match["path"] for name in names if (match := LORA_TENSOR.match(name))})
    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.base_model_name_or_path = None  # else PEFT warns that the base lies elsewhere now
