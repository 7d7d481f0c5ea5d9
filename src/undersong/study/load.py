"""Load and validate studies from YAML files; an unknown key is reported with the closest valid one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from undersong.escaping import MAX_QUOTED_CHARACTERS, quote, shorten
from undersong.study.compose import (
    BASE_KEY,
    MATRIX_KEY,
    expand_matrix,
    first_shared_key,
    merge_keys,
    parse_override,
    read_study_keys,
)
from undersong.study.schema import Study
from undersong.suggestions import did_you_mean
from undersong.types import UndersongError


@dataclass(frozen=True)
class StudyFile:
    """Studies of a file: one under the file's own study name, or one per variant of its matrix.

    The name of a variant is made from the study's name and that of the variant.
    """

    name: str
    studies: tuple[Study, ...]


def load_studies(path: str | Path, overrides: Sequence[str] = (), only: str | None = None) -> StudyFile:
    """The studies of a YAML file, each with the `overrides` (KEY=VALUE) over all else; `only`: the one of that name.

    Errors name the file, the key and what would be right.
    """
    file = Path(path)
    data, override_keys = read_study_keys(file), [parse_override(text) for text in overrides]
    matrix = data.pop(MATRIX_KEY, None)
    location = " with ".join([str(file), *(f"--override {text}" for text in overrides)])
    variants = [("", {})] if matrix is None else expand_matrix(matrix, location)
    studies = []
    for name, overlay in variants:
        if conflicting := [key for override in override_keys if (key := first_shared_key(overlay, override))]:
            # the study would be called by a value that it does not have
            raise UndersongError(
                f"--override {conflicting[0]}: the matrix of {file} varies it; change the file, or use --only."
            )
        parsed_study = parse_study(reduce(merge_keys, override_keys, merge_keys(data, overlay)), location)
        studies.append(
            parsed_study.model_copy(update={"study": f"{parsed_study.study}-{name}" if name else parsed_study.study})
        )
    names = [study.study for study in studies]
    if duplicate := next((name for name, count in Counter(names).items() if count > 1), None):
        raise UndersongError(
            f"{location}: two studies are called {duplicate}; name the values in matrix, {{NAME: value}}."
        )
    if only is not None and only not in names:
        available = f"; it holds {', '.join(names)}."
        raise UndersongError(f"{file} holds no study {only!r}{did_you_mean(only, names) or available}")
    return StudyFile(parsed_study.study, tuple(study for study in studies if only in (None, study.study)))


def load_study(path: str | Path) -> Study:
    """Load the study from a YAML file that holds a single one."""
    studies = load_studies(path).studies
    if len(studies) > 1:
        raise UndersongError(
            f"{path} holds {len(studies)} studies; name one: {', '.join(study.study for study in studies)}."
        )
    return studies[0]


def parse_study(data: dict[str, Any], name: str) -> Study:
    """Build a study from keys and values; `name` identifies it in error messages."""
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        raise UndersongError(f"{name}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """Return the first problem as one sentence.

    Unknown keys come first, because a misspelled key also leaves the right one missing.
    """
    problems = error.errors()
    problem = next((p for p in problems if p["type"] == "extra_forbidden"), problems[0])
    key_path = shorten(".".join(str(part) for part in problem["loc"]))
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])[:MAX_QUOTED_CHARACTERS]
        field_names = _fields_at(Study, [str(part) for part in problem["loc"][:-1]])
        field_names += [BASE_KEY, MATRIX_KEY] if len(problem["loc"]) == 1 else []
        hint = did_you_mean(key, field_names) or f"; known here: {', '.join(field_names)}."
        return f"unknown key {key_path!r}{hint}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "tuple_type":  # pydantic's word for what is a list in YAML
        value = problem["input"]
        message = (
            f"{quote(value)} is no list; write [{quote(value)}]"
            if isinstance(value, str | int | float)
            else "give a list"
        )
    end = "" if message.endswith("?") else "."
    return f"{key_path}: {message}{end}" if key_path else f"{message}{end}"


def _fields_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Return the field names of the model at a location."""
    for part in path:
        field = model.model_fields.get(part)
        if field is None:  # a key inside a mapping (`sets.NAME`): the mapping's value type was already reached
            continue
        inner = [a for a in _type_arguments(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
        if inner:
            model = inner[0]
    return list(model.model_fields)


def _type_arguments(annotation: Any) -> list[Any]:
    return [annotation, *(b for a in get_args(annotation) for b in _type_arguments(a))]


def packaged_study(name: str) -> Study:
    """Load a study that ships with the package, so that it runs from anywhere."""
    from importlib import resources

    file = Path(str(resources.files("undersong"))) / "data" / "studies" / f"{name}.yaml"
    return load_study(file)


def with_seeds(study: Study, count: int) -> Study:
    """Return the study with training seeds and draws 0 to count - 1."""
    tuning = study.tuning.model_copy(update={"seeds": tuple(range(count)), "draws": tuple(range(count))})
    return study.model_copy(update={"tuning": tuning})


def with_models(study: Study, *models: str) -> Study:
    """Return the study with other models."""
    return study.model_copy(update={"models": models})
