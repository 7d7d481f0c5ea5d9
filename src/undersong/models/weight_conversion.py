"""transformers' renaming and merging of published tensors, applied to their names and shapes alone.

It is the one module that uses transformers' conversion of weights, which is not documented in all its parts
(docs/contributing/dependencies.md).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch

from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.headers import Shapes
from undersong.models.weights import LOADING_ERRORS


@dataclass(frozen=True)
class ConvertedTensor:
    """A tensor of the network as a checkpoint gives it, and the names in the files of what it is made of.

    `shape` is None if transformers cannot make it of these, for `reason`. `absent` are the kinds of tensors that its
    merge takes too and that are not there, such as `layers.0.experts.*.up_proj.weight`.
    """

    name: str
    sources: tuple[str, ...]
    shape: tuple[int, ...] | None
    reason: str = ""
    absent: tuple[str, ...] = ()


def network_module_path(network: Any, path: str) -> str:
    """A module's path after transformers' renaming of published checkpoints."""
    from transformers.core_model_loading import rename_source_key

    renamings, _ = _transforms(network, None)
    return str(rename_source_key(f"{path}.weight", renamings, [])[0]).removesuffix(".weight")


def convert_shapes(
    network: Any, shapes: Shapes, key_mapping: Mapping[str, str] | None = None
) -> tuple[list[ConvertedTensor], list[str]]:
    """Rename and merge a checkpoint's tensors as transformers does when it loads them, without their values.

    transformers' own operations run on tensors of the meta device, so one that needs values fails and is never guessed.

    Args:
        network: The network, on any device.
        shapes: Shapes of the checkpoint's tensors by their names in the files.
        key_mapping: That of `from_pretrained`.

    Returns the tensors of the network that the checkpoint fills, and the names (renamed) of all that fill none.
    """
    renamings, converters = _transforms(network, key_mapping)
    by_pattern = {pattern: converter for converter in converters for pattern in converter.source_patterns}
    expected = network.state_dict()
    merges: dict[str, Any] = {}
    sources: dict[str, list[str]] = defaultdict(list)
    converted, unknown = [], []
    for name, shape in shapes.items():
        target, pattern = _rename(name, renamings, converters, network, expected)
        if target not in expected:
            unknown.append(target)
            continue
        if target in sources and (pattern is None or target not in merges):  # a second tensor for the same place
            unknown.append(name)
            continue
        sources[target].append(name)
        if pattern is None:
            converted.append(ConvertedTensor(target, (name,), tuple(shape)))
            continue
        merge = merges.setdefault(target, deepcopy(by_pattern[pattern]))
        merge.add_tensor(target, name, pattern, torch.empty(shape, device="meta"))
    for target, merge in merges.items():
        for tensor in _merge(merge, target, tuple(sources[target]), network):
            if tensor.name in expected:
                converted.append(tensor)
            else:
                unknown.append(tensor.name)
    return converted, unknown


def _transforms(network: Any, key_mapping: Mapping[str, str] | None) -> tuple[list[Any], list[Any]]:
    """The renamings and the converters (splits and merges) that transformers applies for a network, in order."""
    from transformers import WeightConverter
    from transformers.conversion_mapping import get_model_conversion_mapping

    transforms = get_model_conversion_mapping(network, dict(key_mapping) if key_mapping else None)
    converters = [transform for transform in transforms if isinstance(transform, WeightConverter)]
    return [transform for transform in transforms if not isinstance(transform, WeightConverter)], converters


def _rename(
    name: str, renamings: list[Any], converters: list[Any], network: Any, expected: dict[str, torch.Tensor]
) -> tuple[str, str | None]:
    """Name of a tensor in the network, and the pattern of the converter that takes it, if one does."""
    from transformers.core_model_loading import rename_source_key

    target, pattern = rename_source_key(name, renamings, converters, network.base_model_prefix, expected)
    if target not in expected and name in expected:  # a name of the network, which a renaming met by chance
        return name, None
    return target, pattern


def _merge(converter: Any, target: str, sources: tuple[str, ...], network: Any) -> list[ConvertedTensor]:
    """Run a converter's operations; the first of its results has the name `target`."""
    absent = tuple(
        target.replace(converter.target_patterns[0], pattern)
        for pattern in converter.source_patterns
        if pattern not in converter.collected_tensors
    )
    try:
        results = converter.convert(target, model=network, config=network.config)
    except LOADING_ERRORS as error:
        return [ConvertedTensor(target, sources, None, describe_loading_error(error), absent)]
    tensors = {name: value[0] if isinstance(value, list) else value for name, value in results.items()}
    return [ConvertedTensor(name, sources, tuple(value.shape), absent=absent) for name, value in tensors.items()]
