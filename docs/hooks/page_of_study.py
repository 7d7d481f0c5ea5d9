"""The page of a study's keys, from the schema that editors check by (`undersong schema`): it cannot fall behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

HEAD = """# Keys of a study

This page lists every key of a study file. It is made from the schema that `undersong schema` prints
([JSON Schema for editors](study.schema.json)). [Studies](../how-to/studies.md) shows how to write, vary and split study
files.

An unknown key is an error that names the nearest known one. `NAME` is a name of your choice. null removes a key
that a base file sets. A schema cannot say which settings must fit together; `undersong plan` checks that.
"""


def page() -> str:
    """Markdown: a table for each mapping of a study."""
    from undersong.study.json_schema import study_json_schema

    schema = study_json_schema()
    return HEAD + "".join(_section(path, shape, schema["$defs"]) for path, shape in _mappings("", schema, schema))


def _mappings(path: str, shape: dict[str, Any], schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted path -> object schema, depth first in the order of the file."""
    yield path, shape
    for key, one in shape.get("properties", {}).items():
        inner = f"{path}.{key}" if path else key
        for ref in _refs(one):
            yield from _mappings(inner, schema["$defs"][ref], schema)
        for ref in (ref for part in _parts(one) for ref in _refs(part.get("additionalProperties"))):
            yield from _mappings(f"{inner}.NAME", schema["$defs"][ref], schema)


def _parts(one: Any) -> list[dict[str, Any]]:
    """A schema and what it may be instead."""
    return [] if not isinstance(one, dict) else [one, *one.get("anyOf", [])]


def _refs(one: Any) -> list[str]:
    return [part["$ref"].rpartition("/")[2] for part in _parts(one) if "$ref" in part]


def _section(path: str, shape: dict[str, Any], defs: dict[str, Any]) -> str:
    said = f"\n{_prose(shape['description'])}\n" if "description" in shape else ""
    rows = "".join(_row(key, one, defs) for key, one in shape["properties"].items())
    head = "\n| key | type | default | meaning |\n|---|---|---|---|\n"
    return f"\n## {f'`{path}`' if path else 'The file'}\n{said}{head}{rows}"


def _row(key: str, one: dict[str, Any], defs: dict[str, Any]) -> str:
    kind = _kind(one, defs)
    default = "" if "default" not in one else f"`{json.dumps(one['default'], ensure_ascii=False)}`"
    if kind == "mapping" and isinstance(one.get("default"), dict):
        default = "its own"  # that stand in its table
    cells = (f"`{key}`", kind, default, _prose(one.get("description", "")))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _kind(one: Any, defs: dict[str, Any]) -> str:
    """What a value may be, in words; null, which stands everywhere, is not told."""
    if not isinstance(one, dict):
        return "anything"
    if "$ref" in one:
        return "mapping"
    if "anyOf" in one:
        return " or ".join(dict.fromkeys(_kind(part, defs) for part in one["anyOf"] if part.get("type") != "null"))
    if "enum" in one:
        return " or ".join(f"`{value}`" for value in one["enum"])
    if "const" in one:
        return f"`{one['const']}`"
    kind = one.get("type")
    if kind == "array":
        return f"list of {_kind(one['items'], defs)}" if "items" in one else "list"
    if kind == "object":
        return f"NAME → {_kind(one.get('additionalProperties'), defs)}"
    if isinstance(kind, list):
        return " or ".join({"array": "list", "object": "mapping"}.get(name, name) for name in kind)
    return {"integer": "whole number", "string": "text", "boolean": "true or false"}.get(kind, str(kind)) + _range(one)


def _range(one: dict[str, Any]) -> str:
    marks = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    told = [f"{mark} {one[name]}" for name, mark in marks.items() if name in one]
    return f", {', '.join(told)}" if told else ""


def _prose(text: str) -> str:
    return " ".join(text.split())
