"""The comparison of a checkpoint's tensor names and shapes with the network that they fill, without weights.

The network is built on the meta device. Published names go through transformers' own renaming and merging.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from undersong.models.families import Family, import_object, network_class
from undersong.models.headers import Shapes, read_shapes
from undersong.models.network_config import load_config
from undersong.models.weight_conversion import convert_shapes
from undersong.models.weights import WeightPart
from undersong.types import UndersongError

NAMED = 3  # tensors named of each kind of mismatch
NUMBER = re.compile(r"\.\d+\.")
LAST_NUMBER = re.compile(r"(?P<head>.*\.)(?P<number>\d+)(?P<tail>\..*)")


@dataclass
class TensorMismatches:
    """Names of tensors that a checkpoint lacks, that the network does not have, and that have another shape there."""

    total: int = 0
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.missing or self.unexpected or self.reshaped)

    def describe(self) -> str:
        """The first three of each kind, with their number."""
        kinds = {"lacks": self.missing, "holds the unknown": self.unexpected, "has another shape of": self.reshaped}
        return "; ".join(f"{phrase} {_first_names(names)}" for phrase, names in kinds.items() if names)


def _first_names(names: list[str]) -> str:
    more = "" if len(names) <= NAMED else ", …"
    return f"{', '.join(sorted(names)[:NAMED])}{more} ({len(names)} such tensors)"


def weight_parts(source: str | Path, ref: str, family: Family, options: Mapping[str, Any]) -> list[WeightPart]:
    """The networks whose weights make up a checkpoint; one for most families.

    Args:
        source: Folder or Hugging Face id.
        ref: Name of the checkpoint in errors.
        family: Family of the model.
        options: Options for the hub: revision.
    """
    if family.weight_parts:
        parts: list[WeightPart] = import_object(family.weight_parts)(source, **options)
        return parts
    config, unused = load_config(source, family, ref, options), re.compile(family.unused) if family.unused else None
    return [WeightPart(network_class(family), config, source, options, unused=unused)]


def match_tensors(parts: list[WeightPart], ref: str) -> TensorMismatches:
    """Compare all parts of a checkpoint, called `ref` in errors, with their networks.

    Raises UndersongError for weights that are missing or damaged, and `HeadersUnreachableError`, which is one.
    """
    mismatches = TensorMismatches()
    for part in parts:
        name = ref if str(part.source) in (ref, ref.partition("@")[0]) else str(part.source)
        shapes = read_shapes(part.source, name, part.options, part.subfolder)
        mismatches.total += len(shapes)
        _add_mismatches(mismatches, part, shapes, name)
    return mismatches


def _add_mismatches(mismatches: TensorMismatches, part: WeightPart, shapes: Shapes, name: str) -> None:
    with torch.device("meta"):
        network = part.network_class(part.config)
    tensors = network.state_dict(keep_vars=True)  # tied weights are one object
    converted, unknown = convert_shapes(network, shapes, part.key_mapping)
    filled = {tensor.name for tensor in converted}
    filled_ids = {id(tensors[key]) for key in filled}
    mismatches.missing += [
        part.prefix + key for key, value in tensors.items() if key not in filled and id(value) not in filled_ids
    ]
    computed = _computed_names(network)
    mismatches.unexpected += [
        part.prefix + key
        for key in unknown
        if not (part.unused and part.unused.match(key)) and key.rpartition(".")[2] not in computed
    ]
    odd_shapes = _odd_shapes(shapes)
    for tensor in converted:
        expected = tuple(tensors[tensor.name].shape)
        if tensor.shape == expected:
            continue
        odd = [f"{key} {odd_shapes[key]}" for key in tensor.sources if key in odd_shapes]
        absent = [*(part.prefix + kind for kind in tensor.absent), *_absent_siblings(tensor.sources)]
        if len(tensor.sources) > 1 and (odd or absent):
            mismatches.reshaped += odd
            mismatches.missing += absent
        elif tensor.shape is not None:
            mismatches.reshaped.append(f"{part.prefix}{tensor.name} {list(tensor.shape)}, not {list(expected)}")
        else:
            raise UndersongError(
                f"The tensors of {name} do not make a {part.network_class.__name__} ({tensor.reason}, for "
                f"{tensor.name}); give a complete checkpoint."
            )


def _computed_names(network: torch.nn.Module) -> set[str]:
    """Names of the buffers that a network computes itself (rotary frequencies), without their places.

    Older files hold them, where they stood then.
    """
    stored = network.state_dict()
    computed = {name.rpartition(".")[2] for name, _ in network.named_buffers() if name not in stored}
    return computed - {name.rpartition(".")[2] for name in stored}


def _absent_siblings(names: Iterable[str]) -> list[str]:
    """Names that a list of numbered ones, such as those of a layer's experts, lacks up to its largest number."""
    numbers: dict[tuple[str, str], set[int]] = defaultdict(set)
    for name in names:
        if match := LAST_NUMBER.match(name):
            numbers[match["head"], match["tail"]].add(int(match["number"]))
    count = 1 + max((number for group in numbers.values() for number in group), default=-1)
    return [
        f"{head}{number}{tail}"
        for (head, tail), group in numbers.items()
        for number in range(count)
        if number not in group
    ]


def _odd_shapes(shapes: Shapes) -> dict[str, str]:
    """Tensors whose shape is not that of most others of the same name in other layers and experts, with both shapes."""
    alike: dict[str, list[str]] = defaultdict(list)
    for key in shapes:
        alike[NUMBER.sub(".*.", key)].append(key)
    odd: dict[str, str] = {}
    for keys in alike.values():
        of_group = [shapes[key] for key in keys]
        usual = max(set(of_group), key=of_group.count)
        if 2 * of_group.count(usual) > len(keys):
            odd |= {key: f"{list(shapes[key])}, not {list(usual)}" for key in keys if shapes[key] != usual}
    return odd
