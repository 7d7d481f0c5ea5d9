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
TENSOR = re.compile(r"^base_model\.model\.(?P<path>.+?)\.(?P<rest>lora_\w+(\..+)?)$")


def own_names(base: Any, names: Iterable[str]) -> dict[str, str]:
    """Name in the file -> name in this network; a name that is here already, or nowhere, stays as it is."""
    there = {path for path, _ in base.named_modules()}
    found = {name: TENSOR.match(name) for name in names}
    renamed = {name: name for name in found}
    for name, parts in found.items():
        if parts is not None and parts["path"] not in there and (path := _renamed(base, parts["path"])) in there:
            renamed[name] = f"base_model.model.{path}.{parts['rest']}"
    return renamed


def _renamed(base: Any, path: str) -> str:
    """A module's path as transformers would rename a published checkpoint's."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightRenaming, rename_source_key

    renamings = [one for one in get_model_conversion_mapping(base) if isinstance(one, WeightRenaming)]
    return rename_source_key(f"{path}.weight", renamings, [])[0].removesuffix(".weight")


def name_by_path(config: Any, names: Iterable[str], folder: Path) -> None:
    """Makes a config name its modules by the full paths of the tensors, for names or a pattern that no longer fit.

    Errors: ranks or scales by module, which are patterns over the names that are gone.
    """
    if config.rank_pattern or config.alpha_pattern:
        raise UndersongError(
            f"Adapter {folder} has ranks or scales of its own for modules whose names have changed since; save it "
            "again with the transformers that is installed."
        )
    config.target_modules = sorted({parts["path"] for name in names if (parts := TENSOR.match(name))})
    config.layers_to_transform = config.layers_pattern = config.exclude_modules = None
    config.base_model_name_or_path = None  # else PEFT warns that the base lies elsewhere now
