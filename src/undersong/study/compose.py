"""Variants of one study: the combinations of its file's `matrix`, and what `--set` says.

A matrix maps a dotted key to the values that it takes: a list, or a mapping of names to values.  The key `.` is the
whole file, for variants that change several keys together.  Knows merging; checks no key of a study.
"""

from __future__ import annotations

import re
from functools import reduce
from itertools import product
from typing import Any

import yaml

from undersong.study.files import BASE_KEY, strict_yaml, yaml_problem
from undersong.study.merging import merge_keys, nest_key
from undersong.types import UndersongError

MATRIX_KEY = "matrix"
StudyVariant = tuple[str, dict[Any, Any]]  # its name, and what it lays over the file


def expand_matrix(matrix: Any, location: str) -> list[StudyVariant]:
    """One variant a combination, the last key's values changing first; its name joins those of its values."""
    if not isinstance(matrix, dict) or not matrix:
        raise UndersongError(f"{location}: matrix maps keys to their values, such as {{models: [[a], [b]]}}.")
    factors = [_variants_of_key(str(key), values, f"{location}: matrix.{key}") for key, values in matrix.items()]
    return [
        ("-".join(name for name, _ in variants), reduce(merge_keys, (overlay for _, overlay in variants), {}))
        for variants in product(*factors)
    ]


def _variants_of_key(key: str, values: Any, location: str) -> list[StudyVariant]:
    if isinstance(values, list):
        named_values = [(_name_of_value(value), value) for value in values]
    elif isinstance(values, dict):
        named_values = [(str(name), value) for name, value in values.items()]
    else:
        named_values = []
    if not named_values:
        raise UndersongError(f"{location} has no values; give a list of them, or {{NAME: value}}.")
    variants = []
    for name, value in named_values:
        if not re.fullmatch(r"\w[\w.+-]*", name):  # it becomes a folder's
            raise UndersongError(
                f"{location} cannot call {value!r} {name!r}; give {{NAME: value}} with short plain names."
            )
        overlay = nest_key(key, value)
        if not isinstance(overlay, dict) or overlay.keys() & {"study", BASE_KEY, MATRIX_KEY}:
            raise UndersongError(
                f"{location} does not vary keys of a study that is called by its values; take another."
            )
        variants.append((name, overlay))
    return variants


def _name_of_value(value: Any) -> str:
    """A name made of a value: that of a scalar, or of a list of them; empty where there is none."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):
        return ""
    return re.sub(r"[^\w.+]+", "-", "-".join(str(part) for part in parts)).strip("-")


def parse_override(text: str) -> dict[Any, Any]:
    """What one `--set KEY=VALUE` lays over a study; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UndersongError(f"--set {text} has no value; write --set KEY=VALUE, such as --set tuning.seeds=[0,1,2].")
    try:
        overlay = nest_key(key.strip(), strict_yaml(value))
    except yaml.YAMLError as error:
        raise UndersongError(f"--set {text}: its value is not YAML ({yaml_problem(error)}); mend it.") from error
    if not isinstance(overlay, dict):
        raise UndersongError(f"--set {text} names no key; write --set KEY=VALUE.")
    if reserved := overlay.keys() & {BASE_KEY, MATRIX_KEY}:
        raise UndersongError(
            f"--set {text}: {reserved.pop()} is of the file; change it there, or name one study by --only."
        )
    return overlay
