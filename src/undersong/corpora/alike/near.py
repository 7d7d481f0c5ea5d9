"""Near-duplicate texts: exact Jaccard similarity of character n-grams, found through an inverted index.

Knows strings; does not know samples.  No hashing to signatures: what is found is all there is at the threshold.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

SIZE = 5  # letters: spans a short word and its blanks, so word order counts and one changed letter costs five grams

Pair = tuple[int, int, float]  # (place in a, place in b, similarity)


def grams(text: str, size: int = SIZE) -> frozenset[str]:
    """The n-grams of a text with one blank before and after it; a shorter text is its own one gram; none of ""."""
    padded = f" {text} "
    if not text:
        return frozenset()
    return frozenset(padded[i : i + size] for i in range(max(1, len(padded) - size + 1)))


def near_texts(a: Sequence[str], b: Sequence[str], threshold: float, size: int = SIZE) -> list[Pair]:
    """(i, j, similarity) of all pairs with |grams of a[i] & b[j]| / |grams of a[i] | b[j]| >= threshold, in order.

    Equal texts are compared once.  threshold in (0, 1]: ValueError otherwise.  Prefix filtering (Bayardo et al. 2007,
    "Scaling up all pairs similarity search"): two sets that alike share a gram among the rarest few of each, so only
    those are indexed, and every candidate is then compared exactly.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is {threshold}; it is above 0 and at most 1")
    if len(a) < len(b):  # the smaller side is indexed, and the larger only walked through
        return sorted((i, j, similarity) for j, i, similarity in near_texts(b, a, threshold, size))
    left, right = _places(a), _places(b)
    theirs = {text: grams(text, size) for text in right}
    counts = Counter(gram for held in theirs.values() for gram in held)  # any one order of rarity will do
    index: dict[str, list[str]] = defaultdict(list)
    for text, held in theirs.items():
        for gram in _prefix(held, counts, threshold):
            index[gram].append(text)
    found: list[Pair] = []
    for text, places in left.items():
        held = grams(text, size)
        if sum(gram in counts for gram in held) < _least(held, threshold):
            continue  # too few of its grams stand anywhere on the other side
        candidates = {other for gram in _prefix(held, counts, threshold) for other in index.get(gram, ())}
        for other in candidates:
            there = theirs[other]
            # The smaller set bounds what is shared, the larger what there is: most candidates are settled by size.
            if min(len(held), len(there)) < threshold * max(len(held), len(there)) * (1 - 1e-12):
                continue
            shared = len(held & there)
            similarity = shared / (len(held) + len(there) - shared)
            if similarity >= threshold:
                found += [(i, j, similarity) for i in places for j in right[other]]
    return sorted(found)


def _least(held: frozenset[str], threshold: float) -> int:
    """How many of its grams a set shares at least with one that is alike."""
    return math.ceil(threshold * len(held) * (1 - 1e-12))


def _prefix(held: frozenset[str], counts: Counter[str], threshold: float) -> Iterator[str]:
    """The rarest grams of a set, as many as two sets that alike must have one of in common."""
    enough = len(held) - _least(held, threshold) + 1
    return iter(sorted(held, key=lambda gram: (counts[gram], gram))[:enough])


def _places(texts: Sequence[str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        if text:
            out[text].append(place)
    return out
