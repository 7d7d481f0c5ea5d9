"""JSON schema of a study file for editors: every key optional and nullable, because a file may be a fragment."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from undersong.settings.tuning import MAX_SEED_COUNT
from undersong.study.compose import BASE_KEY, MATRIX_KEY
from undersong.study.schema import Study

FILE_KEYS = {
    BASE_KEY: {
        "type": "string",
        "description": "Path of a study file, relative to this one, whose keys this file changes; null removes a key.",
    },
    MATRIX_KEY: {
        "type": "object",
        "description": "Values by dotted key, as a list or {NAME: value}: one study for each combination. The key . is "
        "the whole file.",
        "additionalProperties": {"type": ["array", "object"], "minItems": 1, "minProperties": 1},
    },
}


def study_json_schema() -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of a study file."""
    schema = Study.model_json_schema()
    schema["properties"] = deepcopy(FILE_KEYS) | schema["properties"]  # they are loosened in place
    for part in (schema, *schema["$defs"].values()):
        _loosen(part)
    _offer_sequential_seeds(schema["$defs"]["TuningSettings"]["properties"])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | schema | {"title": "A study of undersong"}


def _offer_sequential_seeds(tuning: dict[str, Any]) -> None:
    """Show what a file may give in place of a list: a number, and for `seeds` the rule by which they are added."""
    rule = next(option for option in tuning.pop("sequential_seeds")["anyOf"] if "$ref" in option)
    number = {"type": "integer", "minimum": 1, "maximum": MAX_SEED_COUNT}
    tuning["seeds"]["anyOf"][1:1] = [number, rule]
    tuning["draws"]["anyOf"].insert(1, number)


def _loosen(schema: dict[str, Any]) -> None:
    """Make every key optional and nullable, and remove titles, which only repeat the keys."""
    schema.pop("required", None)
    schema.pop("title", None)
    for key in ("properties", "additionalProperties"):
        inner = schema.get(key)
        if key == "properties" and inner:
            schema[key] = {name: _allow_null(property_schema) for name, property_schema in inner.items()}
        elif isinstance(inner, dict):
            schema[key] = _allow_null(inner)
    for option in schema.get("anyOf", []):
        _loosen(option)


def _allow_null(schema: dict[str, Any]) -> dict[str, Any]:
    _loosen(schema)
    null = {"type": "null"}
    if null in schema.get("anyOf", []):
        return schema
    annotations: dict[str, Any] = {key: schema.pop(key) for key in ("description", "default") if key in schema}
    return {**annotations, "anyOf": [schema, null]}
