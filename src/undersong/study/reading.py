"""Study files: strict YAML into a Study.  An unknown key is an error that names the nearest known one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from undersong.study.schema import Study, nearest
from undersong.types import UndersongError


class _StrictLoader(yaml.SafeLoader):
    """YAML as usual, except that a key may stand only once in a mapping: the last one would win in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_study(path: str | Path) -> Study:
    """The study in a YAML file.  Errors name the file, the key and what would be right."""
    file = Path(path)
    if not file.is_file():
        raise UndersongError(f"There is no study file {file}; give the path of a YAML file.")
    try:
        data = yaml.load(file.read_text(encoding="utf-8"), Loader=_StrictLoader)  # a SafeLoader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"Line {mark.line + 1} of {file}" if mark is not None else str(file)
        reason = str(getattr(error, "problem", None) or error).splitlines()[0]
        raise UndersongError(f"{place} is not YAML ({reason}); mend it.") from error
    if data is None:
        raise UndersongError(f"{file} is empty; see studies/demo.yaml.")
    if not isinstance(data, dict):
        raise UndersongError(f"{file} holds a {type(data).__name__}, not keys and values; see studies/demo.yaml.")
    return parse_study(data, str(file))


def parse_study(data: dict[str, Any], name: str) -> Study:
    """A study from keys and values; `name` stands in the errors."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise UndersongError(f"{name}: {_first(error)}") from error


def _first(error: ValidationError) -> str:
    """The first problem as one sentence.  A key nobody knows comes first: a typo also leaves its right key missing."""
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        known = _fields_at(Study, [str(part) for part in problem["loc"][:-1]])
        hint = nearest(key, known) or f"; known here: {', '.join(known)}."
        return f"unknown key {where!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    end = "" if message.endswith("?") else "."
    return f"{where}: {message}{end}" if where else f"{message}{end}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Field names of the model that a location lies in."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:  # a key inside a mapping (`sets.NAME`): the mapping's value type was already reached
            continue
        inner = [a for a in _arguments(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _arguments(annotation: Any) -> list[Any]:
    return [annotation, *(b for a in get_args(annotation) for b in _arguments(a))]


def packaged_study(name: str) -> Study:
    """A study that ships with the package, so that it runs from anywhere."""
    from importlib import resources

    file = Path(str(resources.files("undersong"))) / "data" / "studies" / f"{name}.yaml"
    return load_study(file)


def with_seeds(study: Study, count: int) -> Study:
    """The same study with training seeds and draws 0 .. count - 1."""
    tuning = study.tuning.model_copy(update={"seeds": tuple(range(count)), "draws": tuple(range(count))})
    return study.model_copy(update={"tuning": tuning})


def with_models(study: Study, *models: str) -> Study:
    """The same study of other models."""
    return study.model_copy(update={"models": models})
