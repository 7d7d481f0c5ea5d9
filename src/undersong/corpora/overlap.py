"""Overlap of two corpora by audio, text, group or nearly equal words, and checks that held-out sets are disjoint."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from undersong.types import Sample, UndersongError

HELD_OUT = ("audio", "text", "group")  # properties that held-out items must not share with fitted ones
KIND_LABELS = {"audio": "same audio", "text": "same text", "group": "same group", "near": "nearly the same text"}


def find_overlap(
    a: Sequence[Sample], b: Sequence[Sample], kinds: Sequence[str] = tuple(KIND_LABELS), threshold: float = 0.9
) -> list[tuple[str, str, str]]:
    """Find all pairs of samples that share audio, text or a group, in the order of `a` and then of `b`.

    Args:
        a: The first samples.
        b: The second samples.
        kinds: Kinds of overlap, in order of precedence. `audio`: equal pcm_hash (known once a corpus was decoded);
            `text`: equal except for case, punctuation and blanks; `group`: equal, if both have one; `near`: Jaccard
            similarity of the sets of words of at least `threshold`, which compares every text of `a` with every text of
            `b`.
        threshold: Least similarity for `near`.

    Returns:
        (id in a, id in b, reason) of each pair; the reason is the first kind that holds, in words.
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
    """Raise UndersongError if the reference and the test harm set share an item, a behavior or nearly a text."""
    _check_no_overlap(find_overlap(reference, test, threshold=threshold), "The reference harm set", "the test harm set")


def check_disjoint_items(
    pool: Sequence[Sample],
    other_samples: Sequence[Sample],
    other_name: str = "the harm set",
    pool_name: str = "The pool",
    kinds: Sequence[str] = ("audio", "text"),
) -> None:
    """Raise UndersongError if the pool holds an item of another set, by its audio or its words.

    Args:
        pool: The pool.
        other_samples: The other set.
        other_name: Name of the other set in the message.
        pool_name: Name of the pool in the message.
        kinds: Kinds of overlap, as in `find_overlap`.
    """
    _check_no_overlap(find_overlap(pool, other_samples, kinds), pool_name, other_name)


def _check_no_overlap(overlapping: list[tuple[str, str, str]], a: str, b: str) -> None:
    if overlapping:
        first_id, second_id, reason = overlapping[0]
        pairs = f"{len(overlapping)} pairs of items, the first {first_id!r} and {second_id!r} ({reason})"
        raise UndersongError(f"{a} and {b} overlap in {pairs}; remove one of each pair.")


def normalized_words(sample: Sample) -> tuple[str, ...]:
    """Words of a sample's text for comparison, without case, punctuation, symbols and width forms."""
    text = unicodedata.normalize("NFKC", sample.text or "").casefold().replace("'", "").replace("’", "")
    return tuple(text.translate(_WORD_CHARACTERS).split())


class _WordCharacters(dict[int, int]):
    """Maps letters, marks and numbers to themselves, and everything else to a blank.

    By Unicode category, not \\w: vowel signs of Indic scripts are marks, and without them different words would be
    equal.
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
    """Pairs of positions whose sets of words are similar; a text with several voices is compared once."""
    positions_by_words_a, positions_by_words_b = _positions_by_words(a), _positions_by_words(b)
    return [
        (i, j)
        for words_a, positions_a in positions_by_words_a.items()
        for words_b, positions_b in positions_by_words_b.items()
        # The smaller set bounds the intersection, the larger the union: sizes alone rule out most pairs.
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
