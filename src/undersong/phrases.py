"""Phrases with numbers and lists, for messages and the report."""

from __future__ import annotations

from collections.abc import Sequence


def count(n: int | None, singular: str, plural: str | None = None) -> str:
    """'1 run', '3 runs', '1,296 clips'."""
    if n is None:
        return f"an unknown number of {plural or singular + 's'}"
    return f"{n:,} {singular if n == 1 else plural or singular + 's'}"


def join_items(items: Sequence[str], conjunction: str = "and") -> str:
    """'a', 'a and b', 'a, b and c'."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {conjunction} {items[-1]}" if items else ""


def capitalize_first(text: str) -> str:
    """Capitalize the first letter."""
    return text[:1].upper() + text[1:]
