"""The config of a checkpoint's network, loaded before its tokenizer and its weights, so that a fault in config.json is
named as such: transformers reads that file for all three.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch

from undersong.escaping import quote
from undersong.models.checkpoint_files import COPY_AGAIN, describe_loading_error, read_json_object, values_of
from undersong.models.families import Family, network_class
from undersong.models.hub_files import find_file
from undersong.models.pretrained import load_pretrained
from undersong.models.weights import LOADING_ERRORS
from undersong.types import UndersongError

INVALID_FIELD = re.compile(r"^Validation error for field '(\w+)'")  # of huggingface_hub's strict dataclasses


def load_config(source: str | Path, family: Family, ref: str, options: Mapping[str, Any]) -> Any:
    """Load the config of a family's network.

    Args:
        source: Folder or Hugging Face id.
        family: Family of the model.
        ref: Name of the model in errors.
        options: Options of `from_pretrained`, such as revision.

    Raises:
        UndersongError: A config that the network's class does not take, an unknown dtype, or a placeholder that is no
            token id.
    """
    file = find_file(source, "config.json", options)
    stored = {} if file is None else read_json_object(file, "config.json", ref)
    _check_dtypes(stored, ref)
    try:
        config = load_pretrained(network_class(family).config_class.from_pretrained, source, ref, **options)
    except LOADING_ERRORS as error:
        raise UndersongError(_describe_config_error(stored, family, ref, error)) from error
    token_id = attrgetter(family.placeholder)(config)
    if isinstance(token_id, bool) or not isinstance(token_id, int) or token_id < 0:
        raise UndersongError(
            f"config.json of {ref} has the {family.placeholder} {quote(token_id)}, which is no token id; {COPY_AGAIN}."
        )
    return config


def _check_dtypes(stored: Mapping[str, Any], ref: str) -> None:
    """Raise UndersongError for a name that torch does not have, which transformers looks up without a check."""
    for key in ("dtype", "torch_dtype"):
        for name in values_of(stored, key):
            if (
                isinstance(name, str)
                and name != "auto"
                and not isinstance(getattr(torch, name.removeprefix("torch."), None), torch.dtype)
            ):
                raise UndersongError(
                    f"config.json of {ref} has the {key} {quote(name)}, which torch does not have; write float32, "
                    "bfloat16 or float16."
                )


def _describe_config_error(stored: Mapping[str, Any], family: Family, ref: str, error: Exception) -> str:
    """Name the value that does not fit; if the library names none, its reason."""
    if match := INVALID_FIELD.match(str(error)):
        values = list(values_of(stored, match[1]))
        value = f" {quote(values[0])}" if len(values) == 1 else ""
        reason = f"the {match[1]}{value} does not fit"
    else:
        reason = describe_loading_error(error)
    return f"The config.json of {ref} makes no {family.name} ({reason}); {COPY_AGAIN}."
