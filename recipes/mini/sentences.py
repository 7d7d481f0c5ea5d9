"""Sentences by their words and their names: grammatical mood, and a draw that depends on nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

QUESTION = frozenset("who what when where which why how is are was were do does did can".split())


def mood(text: str) -> str:
    """`question` or `imperative`, by the mark at its end and the word at its head: AdvBench's requests are imperatives."""
    return "question" if text.rstrip().endswith("?") or text.split()[0].lower() in QUESTION else "imperative"


def first(idents: Iterable[str], count: int) -> set[str]:
    """As many of the names, drawn by nothing but the names: the same whatever else is there."""
    return set(sorted(set(idents), key=digest)[:count])


def digest(ident: str) -> bytes:
    """SHA-256 of a name, to order names by."""
    return hashlib.sha256(ident.encode()).digest()
