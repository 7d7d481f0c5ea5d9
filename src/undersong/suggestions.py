""" "Did you mean …?": the closest valid names for an unknown name, as the end of an error message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

MAX_SUGGESTIONS = 20  # names listed if none is close
MIN_SIMILARITY = 0.5  # of `SequenceMatcher.ratio`


def did_you_mean(word: str, candidates: Iterable[str], min_similarity: float = MIN_SIMILARITY) -> str:
    """The clause `; did you mean 'X'?` with the closest candidates, or "" if none is close.

    Candidates that are equally close are all named.
    """
    matches = _closest_names(word, list(candidates), min_similarity)
    return f"; did you mean {matches}?" if matches else ""


def suggest(word: str, candidates: Iterable[str]) -> str:
    """The clause `did you mean 'X'` with the closest candidates, or `choose from …` with a list if none is close."""
    choices = list(candidates)
    matches = _closest_names(word, choices)
    return f"did you mean {matches}" if matches else f"choose from {', '.join(choices[:MAX_SUGGESTIONS]) or 'none'}"


def _closest_names(word: str, candidates: Sequence[str], min_similarity: float = MIN_SIMILARITY) -> str:
    bare_names = {candidate.lstrip("-"): candidate for candidate in candidates}  # all options share their dashes
    word = word.lstrip("-")
    matches = get_close_matches(word, bare_names, n=3, cutoff=min_similarity)
    ratios = [SequenceMatcher(None, match, word).ratio() for match in matches]
    return " or ".join(repr(bare_names[match]) for match, ratio in zip(matches, ratios) if ratio == ratios[0])
