"""One mapping of a study over another: what `base:`, `matrix:` and `--set` all do.  Knows no key."""

from __future__ import annotations

from typing import Any


def merged(beneath: dict[Any, Any], above: dict[Any, Any]) -> dict[Any, Any]:
    """`above` over `beneath`: mappings key by key; lists and scalars replace; null takes away a key that is there."""
    out = dict(beneath)
    for key, value in above.items():
        old = out.get(key)
        if value is None and key in out:
            del out[key]
        elif isinstance(value, dict) and isinstance(old, dict):
            out[key] = merged(old, value)
        else:  # a null with nothing beneath is a value, such as that of a system text that says nothing
            out[key] = value
    return out


def nested(key: str, value: Any) -> Any:
    """What `value` at a dotted key is as mappings; the key `.` is the whole file."""
    for part in reversed(key.split(".") if key != "." else []):
        value = {part: value}
    return value


def shared(one: dict[Any, Any], other: dict[Any, Any]) -> str | None:
    """The first dotted key that both would lay over something."""
    for key in one.keys() & other.keys():
        inner, beside = one[key], other[key]
        if not (isinstance(inner, dict) and isinstance(beside, dict)):
            return str(key)
        if found := shared(inner, beside):
            return f"{key}.{found}"
    return None
