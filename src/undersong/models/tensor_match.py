"""The comparison of a checkpoint's tensor names and shapes with the network that they fill, without weights.

transformers itself loads them, onto the meta device: its renaming and merging of published tensors is what is tested.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.families import Family, import_object, network_class
from undersong.models.headers import Shapes, read_shapes
from undersong.models.network_config import load_config
from undersong.models.pretrained import quiet_transformers
from undersong.models.weights import LOADING_ERRORS, WeightPart
from undersong.types import UndersongError

NAMED = 3  # tensors named of each kind of mismatch
NUMBER = re.compile(r"\.\d+\.")


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
    return [WeightPart(network_class(family), load_config(source, family, ref, options), source, options)]


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
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    mapping = {"key_mapping": dict(part.key_mapping)} if part.key_mapping else {}

    try:
        with quiet_transformers():
            _, info = part.network_class.from_pretrained(
                None,
                config=part.config,
                state_dict=state,
                dtype=torch.float32,
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                trust_remote_code=False,
                **mapping,
            )
    except LOADING_ERRORS as error:
        if not (odd := _odd_shapes(shapes)):
            reason = describe_loading_error(error)
            raise UndersongError(
                f"The tensors of {name} do not make a {part.network_class.__name__} ({reason}); give a complete "
                "checkpoint."
            ) from error
        mismatches.reshaped += odd
        return
    mismatches.missing += [part.prefix + key for key in info["missing_keys"]]
    mismatches.unexpected += [
        part.prefix + key for key in info["unexpected_keys"] if not (part.unused and part.unused.match(key))
    ]
    mismatches.reshaped += [
        f"{part.prefix}{key} {list(found)}, not {list(expected)}" for key, found, expected in info["mismatched_keys"]
    ]


def _odd_shapes(shapes: Shapes) -> list[str]:
    """Tensors whose shape is not that of most others of the same name in other layers and experts."""
    alike: dict[str, list[str]] = defaultdict(list)
    for key in shapes:
        alike[NUMBER.sub(".*.", key)].append(key)
    odd = []
    for keys in alike.values():
        of_group = [shapes[key] for key in keys]
        usual = max(set(of_group), key=of_group.count)
        if 2 * of_group.count(usual) > len(keys):
            odd += [f"{key} {list(shapes[key])}, not {list(usual)}" for key in keys if shapes[key] != usual]
    return odd
