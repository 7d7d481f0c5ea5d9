"""What a name that nobody knows may have meant: how errors of that kind end.  Knows words alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

LISTED = 20  # names, where none is near


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'this'?`, of the nearest of the known words or of those that are equally near; empty where none
    is near."""
    near = _near(word, list(known))
    return f"; did you mean {near}?" if near else ""


def meant(word: str, known: Iterable[str]) -> str:
    """`did you mean 'this'`, of the nearest of the known words, or where none is near, what to choose from."""
    there = list(known)
    near = _near(word, there)
    return f"did you mean {near}" if near else f"choose from {', '.join(there[:LISTED]) or 'none'}"


def _near(word: str, known: Sequence[str]) -> str:
    near = get_close_matches(word, known, n=3, cutoff=0.5)
    shares = [SequenceMatcher(None, one, word).ratio() for one in near]
    return " or ".join(repr(one) for one, share in zip(near, shares) if share == shares[0])
