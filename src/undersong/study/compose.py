"""Study files as key-value mappings: strict YAML, `base` files, `matrix` variants and `--override` values merged into
each other.
"""

from __future__ import annotations

import re
from functools import reduce
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from undersong.types import UndersongError


def merge_keys(base: dict[Any, Any], overlay: dict[Any, Any]) -> dict[Any, Any]:
    """`above` over `beneath`: mappings key by key; lists and scalars replace; null takes away a key that is there."""
    out = dict(base)
    for key, value in overlay.items():
        old = out.get(key)
        if value is None and key in out:
            del out[key]
        elif isinstance(value, dict) and isinstance(old, dict):
            out[key] = merge_keys(old, value)
        else:  # a null with nothing beneath is a value, such as that of a system text that says nothing
            out[key] = value
    return out


def nest_key(key: str, value: Any) -> Any:
    """What `value` at a dotted key is as mappings; the key `.` is the whole file."""
    for part in reversed(key.split(".") if key != "." else []):
        value = {part: value}
    return value


def first_shared_key(first: dict[Any, Any], second: dict[Any, Any]) -> str | None:
    """The first dotted key that both would lay over something."""
    for key in first.keys() & second.keys():
        first_value, second_value = first[key], second[key]
        if not (isinstance(first_value, dict) and isinstance(second_value, dict)):
            return str(key)
        if nested_key := first_shared_key(first_value, second_value):
            return f"{key}.{nested_key}"
    return None


BASE_KEY = "base"


class _StrictLoader(yaml.SafeLoader):
    """YAML as usual, except that a key may stand only once in a mapping: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # SafeLoader refuses it as a key
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def strict_yaml(text: str) -> Any:
    """What a text says; raises yaml.YAMLError."""
    return yaml.load(text, Loader=_StrictLoader)  # a SafeLoader


def read_study_keys(file: Path) -> dict[str, Any]:
    """The keys of a study file over those of its base, which may have one too."""
    data, chain = _read_mapping(file), [file]
    files = [data]
    while (base := data.pop(BASE_KEY, None)) is not None:
        if not isinstance(base, str):
            raise UndersongError(f"{chain[-1]}: base is not a path; name one study file, relative to this one.")
        base_file = chain[-1].parent / base
        if base_file.resolve() in [path.resolve() for path in chain]:
            cycle = " -> ".join(str(path) for path in (*chain, base_file))
            raise UndersongError(f"{file} is its own base ({cycle}); take one `base` of these out.")
        if not base_file.is_file():
            raise UndersongError(
                f"There is no study file {base_file}, which {chain[-1]} names as its base; give a path relative to it."
            )
        data = _read_mapping(base_file)
        chain.append(base_file)
        files.append(data)
    if len(files) > 1 and "study" not in files[0]:  # it would write over the results of its base
        raise UndersongError(f"{file} has a base, and no name of its own; add `study: NAME`.")
    keys = files.pop()
    while files:
        keys = merge_keys(keys, files.pop())
    return keys


def _read_mapping(file: Path) -> dict[str, Any]:
    """What one file says.  Errors name the file, the line and what would be right."""
    if not file.is_file():
        raise UndersongError(f"There is no study file {file}; give the path of a YAML file.")
    try:
        data = strict_yaml(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        location = f"Line {mark.line + 1} of {file}" if mark is not None else str(file)
        raise UndersongError(f"{location} is not YAML ({yaml_problem(error)}); fix it.") from error
    if data is None:
        raise UndersongError(f"{file} is empty; see studies/demo.yaml.")
    if not isinstance(data, dict):
        raise UndersongError(f"{file} holds a {type(data).__name__}, not keys and values; see studies/demo.yaml.")
    return data


def yaml_problem(error: Exception) -> str:
    """What is wrong with a text that is not YAML, in one line."""
    return str(getattr(error, "problem", None) or error).splitlines()[0]


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
    """What one `--override KEY=VALUE` lays over a study; the value is YAML."""
    key, equals, value = text.partition("=")
    if not equals:
        raise UndersongError(
            f"--override {text} has no value; write --override KEY=VALUE, such as --override tuning.seeds=[0,1,2]."
        )
    try:
        overlay = nest_key(key.strip(), strict_yaml(value))
    except yaml.YAMLError as error:
        raise UndersongError(f"--override {text}: its value is not YAML ({yaml_problem(error)}); fix it.") from error
    if not isinstance(overlay, dict):
        raise UndersongError(f"--override {text} names no key; write --override KEY=VALUE.")
    if reserved := overlay.keys() & {BASE_KEY, MATRIX_KEY}:
        raise UndersongError(
            f"--override {text}: {reserved.pop()} is of the file; change it there, or name one study by --only."
        )
    return overlay
