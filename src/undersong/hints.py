"""What a name that nobody knows may have meant: how errors of that kind end.  Knows words alone."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches

LISTED = 20  # names, where none is near


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'this'?`, of the nearest of the known words or of those that are equally near; empty where none
    is near."""
    near = get_close_matches(word, list(known), n=3, cutoff=0.5)
    shares = [SequenceMatcher(None, one, word).ratio() for one in near]
    best = [repr(one) for one, share in zip(near, shares) if share == shares[0]]
    return f"; did you mean {' or '.join(best)}?" if best else ""


def meant(word: str, known: Iterable[str]) -> str:
    """`did you mean 'this'`, of the nearest of the known words, or where none is near, what to choose from."""
    there = list(known)
    close = get_close_matches(word, there, n=1)
    return f"did you mean {close[0]!r}" if close else f"choose from {', '.join(there[:LISTED]) or 'none'}"
