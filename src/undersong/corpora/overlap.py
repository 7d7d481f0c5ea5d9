"""Overlap between two corpora by audio, text, group or nearly equal words, and checks that held-out sets are disjoint."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from undersong.types import Sample, UndersongError

HELD_OUT = ("audio", "text", "group")  # what a held-out item and one that something was fitted on must not share
KIND_LABELS = {"audio": "same audio", "text": "same text", "group": "same group", "near": "nearly the same text"}


def find_overlap(
    a: Sequence[Sample], b: Sequence[Sample], kinds: Sequence[str] = tuple(KIND_LABELS), threshold: float = 0.9
) -> list[tuple[str, str, str]]:
    """(id in a, id in b, why) of every pair that shares something, in the order of `a` and then of `b`.

    `why` says the first of `kinds` that holds, in words.  `audio`: equal pcm_hash (known once a corpus was examined);
    `text`: equal but for case, punctuation and blanks; `group`: equal, where both have one; `near`: the Jaccard
    similarity of the two sets of words is at least `threshold` (which compares every text of a with every one of b).
    """
    if unknown := set(kinds) - set(KIND_LABELS):
        raise ValueError(f"unknown kind of overlap {sorted(unknown)}; choose from {[*KIND_LABELS]}")
    kind_by_pair: dict[tuple[int, int], str] = {}
    keys = {"audio": lambda sample: sample.pcm_hash, "text": normalized_words, "group": lambda sample: sample.group}
    for kind in kinds:
        pairs = _similar_pairs(a, b, threshold) if kind == "near" else _equal_pairs(a, b, keys[kind])
        for pair in pairs:
            kind_by_pair.setdefault(pair, kind)
    return [(a[i].id, b[j].id, KIND_LABELS[kind]) for (i, j), kind in sorted(kind_by_pair.items())]


def check_disjoint_behaviors(reference: Sequence[Sample], test: Sequence[Sample], threshold: float = 0.9) -> None:
    """UndersongError where the reference harm set and the test harm set share an item, a behavior or nearly a text."""
    _check_no_overlap(find_overlap(reference, test, threshold=threshold), "The reference harm set", "the test harm set")


def check_disjoint_items(
    pool: Sequence[Sample],
    other_samples: Sequence[Sample],
    other_name: str = "the harm set",
    pool_name: str = "The pool",
    kinds: Sequence[str] = ("audio", "text"),
) -> None:
    """UndersongError where the pool (called `a`) holds an item of another set (`name`), by its audio or its words."""
    _check_no_overlap(find_overlap(pool, other_samples, kinds), pool_name, other_name)


def _check_no_overlap(overlapping: list[tuple[str, str, str]], a: str, b: str) -> None:
    if overlapping:
        first_id, second_id, reason = overlapping[0]
        pairs = f"{len(overlapping)} pairs of items, the first {first_id!r} and {second_id!r} ({reason})"
        raise UndersongError(f"{a} and {b} overlap in {pairs}; remove one of each pair.")


def normalized_words(sample: Sample) -> tuple[str, ...]:
    """The words of a sample's text as compared: case, punctuation, symbols and width forms taken out."""
    text = unicodedata.normalize("NFKC", sample.text or "").casefold().replace("'", "").replace("’", "")
    return tuple(text.translate(_WORD_CHARACTERS).split())


class _WordCharacters(dict[int, int]):
    """Each letter, mark and number as itself, everything else as a blank.

    By category, not \\w: vowel signs of Indic scripts are marks, and without them different words would be equal.
    """

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


_WORD_CHARACTERS = _WordCharacters()


def _equal_pairs(a: Sequence[Sample], b: Sequence[Sample], key: Callable[[Sample], object]) -> list[tuple[int, int]]:
    """Pairs of positions whose keys are equal and not empty."""
    positions: dict[object, list[int]] = defaultdict(list)
    for j, sample in enumerate(b):
        positions[key(sample)].append(j)
    return [(i, j) for i, sample in enumerate(a) if (k := key(sample)) for j in positions.get(k, ())]


def _similar_pairs(a: Sequence[Sample], b: Sequence[Sample], threshold: float) -> list[tuple[int, int]]:
    """Pairs of positions whose sets of words are alike; texts said in several voices are compared once."""
    positions_by_words_a, positions_by_words_b = _positions_by_words(a), _positions_by_words(b)
    return [
        (i, j)
        for words_a, positions_a in positions_by_words_a.items()
        for words_b, positions_b in positions_by_words_b.items()
        # The smaller set bounds the intersection, the larger the union: most pairs are settled by their sizes.
        if min(len(words_a), len(words_b)) / max(len(words_a), len(words_b)) >= threshold
        and len(words_a & words_b) / len(words_a | words_b) >= threshold
        for i in positions_a
        for j in positions_b
    ]


def _positions_by_words(samples: Sequence[Sample]) -> dict[frozenset[str], list[int]]:
    out: dict[frozenset[str], list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if word_set := frozenset(normalized_words(sample)):
            out[word_set].append(i)
    return out
