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

from undersong.study.files import BASE, problem, strict_yaml
from undersong.study.merging import merged, nested
from undersong.types import UndersongError

MATRIX = "matrix"
Variant = tuple[str, dict[Any, Any]]  # its name, and what it lays over the file


def combinations(matrix: Any, where: str) -> list[Variant]:
    """One variant a combination, the last key's values changing first; its name joins those of its values."""
    if not isinstance(matrix, dict) or not matrix:
        raise UndersongError(f"{where}: matrix maps keys to their values, such as {{models: [[a], [b]]}}.")
    factors = [_values(str(key), values, f"{where}: matrix.{key}") for key, values in matrix.items()]
    return [
        ("-".join(name for name, _ in variants), reduce(merged, (over for _, over in variants), {}))
        for variants in product(*factors)
    ]


def _values(key: str, values: Any, where: str) -> list[Variant]:
    if isinstance(values, list):
        named = [(_called(value), value) for value in values]
    elif isinstance(values, dict):
        named = [(str(name), value) for name, value in values.items()]
    else:
        named = []
    if not named:
        raise UndersongError(f"{where} has no values; give a list of them, or {{NAME: value}}.")
    out = []
    for name, value in named:
        if not re.fullmatch(r"\w[\w.+-]*", name):  # it becomes a folder's
            raise UndersongError(
                f"{where} cannot call {value!r} {name!r}; give {{NAME: value}} with short plain names."
            )
        over = nested(key, value)
        if not isinstance(over, dict) or over.keys() & {"study", BASE, MATRIX}:
            raise UndersongError(f"{where} does not vary keys of a study that is called by its values; take another.")
        out.append((name, over))
    return out


def _called(value: Any) -> str:
    """A name made of a value: that of a scalar, or of a list of them; empty where there is none."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):
        return ""
    return re.sub(r"[^\w.+]+", "-", "-".join(str(part) for part in parts)).strip("-")


def assigned(text: str) -> dict[Any, Any]:
    """What one `--set KEY=VALUE` lays over a study; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UndersongError(f"--set {text} has no value; write --set KEY=VALUE, such as --set tuning.seeds=[0,1,2].")
    try:
        over = nested(key.strip(), strict_yaml(value))
    except yaml.YAMLError as error:
        raise UndersongError(f"--set {text}: its value is not YAML ({problem(error)}); mend it.") from error
    if not isinstance(over, dict):
        raise UndersongError(f"--set {text} names no key; write --set KEY=VALUE.")
    if named := over.keys() & {BASE, MATRIX}:
        raise UndersongError(
            f"--set {text}: {named.pop()} is of the file; change it there, or name one study by --only."
        )
    return over
