"""Study files as key-value mappings: strict YAML, `base` files, `matrix` variants and `--override` values merged into
each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import reduce
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import yaml

from undersong.escaping import MAX_QUOTED_CHARACTERS, describe_error, holds_credentials, quote, shorten
from undersong.regular_files import check_regular_file
from undersong.types import UndersongError


def merge_keys(base: dict[Any, Any], overlay: dict[Any, Any]) -> dict[Any, Any]:
    """Merge `overlay` into `base`: mappings key by key, while lists and scalars replace. Null removes a key."""
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
    """Return the nested mappings that set a dotted key to `value`; the key `.` stands for the whole file."""
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


MAX_YAML_NODES = 1_000_000  # with every alias replaced by what it names; a study has a few hundred
MAX_YAML_INTEGER = 2**63  # no count or seed of a study is larger, and arithmetic on larger ones overflows
UNUSABLE_CHARACTERS = re.compile("[\0\ud800-\udfff]")  # no path, table or page can hold them
SCALAR_ERRORS = (ValueError, LookupError, AttributeError, TypeError, OverflowError)  # of PyYAML's own constructors


class _StrictLoader(yaml.SafeLoader):
    """YAML loader that rejects repeated keys in a mapping, of which the last would silently win, and bad scalars."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Construct the value of a node; a scalar that cannot be one raises a YAMLError with its line."""
        if not isinstance(node, yaml.ScalarNode):
            return super().construct_object(node, deep)
        try:
            value = super().construct_object(node, deep)
        except SCALAR_ERRORS as error:
            kind = node.tag.rpartition(":")[2]
            raise _scalar_error(f"{quote(node.value)} is no {kind}", node) from error
        if isinstance(value, int) and abs(value) >= MAX_YAML_INTEGER:
            raise _scalar_error(f"{quote(value)} is too large, because whole numbers have 63 bits", node)
        if isinstance(value, str) and UNUSABLE_CHARACTERS.search(value):
            raise _scalar_error(f"the text {quote(value)} holds a NUL or half of a surrogate pair", node)
        if isinstance(value, str) and holds_credentials(value):  # artifacts, plans and reports keep addresses
            problem = "an address has a name, a password or a query in it; set UNDERSONG_API_KEY instead"
            raise _scalar_error(problem, node)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue  # SafeLoader refuses it as a key
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {quote(key.value)} stands twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _scalar_error(problem: str, node: yaml.Node) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)


def strict_yaml(text: str) -> Any:
    """Parse YAML text strictly.

    Raises:
        yaml.YAMLError: The text is not YAML, holds a value that is not of its type, is nested too deeply, or has more
            than `MAX_YAML_NODES` values once its aliases are expanded.
    """
    loader = _StrictLoader(text)  # a SafeLoader
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        if _count_nodes(node, {}) > MAX_YAML_NODES:
            raise yaml.YAMLError(f"its aliases expand to more than {MAX_YAML_NODES:,} values")
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError("it is nested too deeply, or an alias names what it is in") from error
    finally:
        loader.dispose()


def _count_nodes(node: yaml.Node, counts: dict[int, int]) -> int:
    """Count the nodes of a tree in which every alias is expanded; `counts` holds those of nodes seen before."""
    if id(node) not in counts:
        children: Sequence[yaml.Node] = ()
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        counts[id(node)] = 1 + sum(_count_nodes(child, counts) for child in children)
    return counts[id(node)]


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
        if not base_file.exists() or base_file.is_dir():
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
    """Read the mapping in one file. Errors name the file, the line and a correction."""
    if not file.exists() or file.is_dir():
        raise UndersongError(f"There is no study file {file}; give the path of a YAML file.")
    check_regular_file(file)
    try:
        data = strict_yaml(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UndersongError(f"{file} is not a text file; give the path of a YAML file.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        location = f"Line {mark.line + 1} of {file}" if mark is not None else str(file)
        raise UndersongError(f"{location} is not YAML ({yaml_problem(error)}); fix it.") from error
    if data is None:
        raise UndersongError(f"{file} is empty; see studies/demo.yaml.")
    if not isinstance(data, dict):
        raise UndersongError(f"{file} holds a {type(data).__name__}, not keys and values; see studies/demo.yaml.")
    return data


def yaml_problem(error: Exception) -> str:
    """Return one line that says why a text is not valid YAML."""
    problem = getattr(error, "problem", None)
    return shorten(problem.splitlines()[0], 2 * MAX_QUOTED_CHARACTERS) if problem else describe_error(error)


MATRIX_KEY = "matrix"
MAX_MATRIX_STUDIES = 10_000
StudyVariant = tuple[str, dict[Any, Any]]  # its name, and what it lays over the file


def expand_matrix(matrix: Any, location: str) -> list[StudyVariant]:
    """One variant a combination, the last key's values changing first; its name joins those of its values."""
    if not isinstance(matrix, dict) or not matrix:
        raise UndersongError(f"{location}: matrix maps keys to their values, such as {{models: [[a], [b]]}}.")
    factors = [_variants_of_key(str(key), values, f"{location}: matrix.{key}") for key, values in matrix.items()]
    if (count := prod(map(len, factors))) > MAX_MATRIX_STUDIES:
        raise UndersongError(
            f"{location}: matrix has {count:,} combinations, and a file has at most {MAX_MATRIX_STUDIES:,} studies; "
            "split it, or vary fewer keys."
        )
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
                f"{location} cannot call {quote(value)} {quote(name)}; give {{NAME: value}} with short plain names."
            )
        overlay = nest_key(key, value)
        if not isinstance(overlay, dict) or overlay.keys() & {"study", BASE_KEY, MATRIX_KEY}:
            raise UndersongError(
                f"{location} does not vary keys of a study that is called by its values; take another."
            )
        variants.append((name, overlay))
    return variants


def _name_of_value(value: Any) -> str:
    """Return a name made of a scalar or of a list of scalars; empty for any other value."""
    parts = value if isinstance(value, list) else [value]
    if any(isinstance(part, list | dict) for part in parts):
        return ""
    return re.sub(r"[^\w.+]+", "-", "-".join(str(part) for part in parts)).strip("-")


def parse_override(text: str) -> dict[Any, Any]:
    """Parse one `--override KEY=VALUE` to the mapping that is merged into a study; the value is YAML.

    Raises:
        UndersongError: The value is missing or not YAML, the key is empty, or it is `base` or `matrix`.
    """
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
