"""One mapping of a study over another: what `base:`, `matrix:` and `--set` all do.  Knows no key."""

from __future__ import annotations

from typing import Any


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
