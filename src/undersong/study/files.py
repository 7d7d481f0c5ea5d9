"""Study files as keys and values: strict YAML, laid over the file that it names as its `base`.  Knows no other key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from undersong.study.merging import merge_keys
from undersong.types import UndersongError

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
        raise UndersongError(f"{location} is not YAML ({yaml_problem(error)}); mend it.") from error
    if data is None:
        raise UndersongError(f"{file} is empty; see studies/demo.yaml.")
    if not isinstance(data, dict):
        raise UndersongError(f"{file} holds a {type(data).__name__}, not keys and values; see studies/demo.yaml.")
    return data


def yaml_problem(error: Exception) -> str:
    """What is wrong with a text that is not YAML, in one line."""
    return str(getattr(error, "problem", None) or error).splitlines()[0]
