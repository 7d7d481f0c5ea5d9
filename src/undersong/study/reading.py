"""Keys and values into studies.  An unknown key is an error that names the nearest known one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from undersong.hints import nearest
from undersong.study.files import BASE, read_keys
from undersong.study.matrix import MATRIX, assigned, combinations
from undersong.study.merging import merged, shared
from undersong.study.schema import Study
from undersong.types import UndersongError


@dataclass(frozen=True)
class StudyFile:
    """What a file holds: one study of its own name, or those of its matrix, each called after it."""

    name: str
    studies: tuple[Study, ...]


def load_studies(path: str | Path, sets: Sequence[str] = (), only: str | None = None) -> StudyFile:
    """The studies of a YAML file, each with the `sets` (KEY=VALUE) over all else; `only`: the one of that name.

    Errors name the file, the key and what would be right.
    """
    file = Path(path)
    data, changes = read_keys(file), [assigned(text) for text in sets]
    matrix = data.pop(MATRIX, None)
    where = " with ".join([str(file), *(f"--set {text}" for text in sets)])
    variants = [("", {})] if matrix is None else combinations(matrix, where)
    studies = []
    for name, over in variants:
        if varied := [key for change in changes if (key := shared(over, change))]:
            # the study would be called by a value that it does not have
            raise UndersongError(f"--set {varied[0]}: the matrix of {file} varies it; change the file, or use --only.")
        plain = parse_study(reduce(merged, changes, merged(data, over)), where)
        studies.append(plain.model_copy(update={"study": f"{plain.study}-{name}" if name else plain.study}))
    names = [one.study for one in studies]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UndersongError(f"{where}: two studies are called {twice}; name the values in matrix, {{NAME: value}}.")
    if only is not None and only not in names:
        held = f"; it holds {', '.join(names)}."
        raise UndersongError(f"{file} holds no study {only!r}{nearest(only, names) or held}")
    return StudyFile(plain.study, tuple(one for one in studies if only in (None, one.study)))


def load_study(path: str | Path) -> Study:
    """The study in a YAML file that holds one."""
    found = load_studies(path).studies
    if len(found) > 1:
        raise UndersongError(f"{path} holds {len(found)} studies; name one: {', '.join(one.study for one in found)}.")
    return found[0]


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
        known += [BASE, MATRIX] if len(problem["loc"]) == 1 else []
        hint = nearest(key, known) or f"; known here: {', '.join(known)}."
        return f"unknown key {where!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "tuple_type":  # pydantic's word for what is a list in YAML
        one = problem["input"]
        message = f"{one!r} is no list; write [{one}]" if isinstance(one, str | int | float) else "give a list"
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
