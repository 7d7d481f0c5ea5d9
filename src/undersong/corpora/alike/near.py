"""Near-duplicate texts: exact Jaccard similarity of character n-grams, found through an inverted index.

Knows strings; does not know samples.  No hashing to signatures: what is found is all there is at the threshold.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

NGRAM_SIZE = (
    5  # letters: spans a short word and its blanks, so word order counts and one changed letter costs five grams
)

TextPair = tuple[int, int, float]  # (place in a, place in b, similarity)


def character_ngrams(text: str, size: int = NGRAM_SIZE) -> frozenset[str]:
    """The n-grams of a text with one blank before and after it; a shorter text is its own one gram; none of ""."""
    padded = f" {text} "
    if not text:
        return frozenset()
    return frozenset(padded[i : i + size] for i in range(max(1, len(padded) - size + 1)))


def find_similar_texts(a: Sequence[str], b: Sequence[str], threshold: float, size: int = NGRAM_SIZE) -> list[TextPair]:
    """(i, j, similarity) of all pairs with |grams of a[i] & b[j]| / |grams of a[i] | b[j]| >= threshold, in order.

    Equal texts are compared once.  threshold in (0, 1]: ValueError otherwise.  Prefix filtering (Bayardo et al. 2007,
    "Scaling up all pairs similarity search"): two sets that alike share a gram among the rarest few of each, so only
    those are indexed, and every candidate is then compared exactly.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is {threshold}; it is above 0 and at most 1")
    if len(a) < len(b):  # the smaller side is indexed, and the larger only walked through
        return sorted((i, j, similarity) for j, i, similarity in find_similar_texts(b, a, threshold, size))
    positions_a, positions_b = _positions(a), _positions(b)
    ngrams_b = {text: character_ngrams(text, size) for text in positions_b}
    counts = Counter(gram for ngrams in ngrams_b.values() for gram in ngrams)  # any one order of rarity will do
    index: dict[str, list[str]] = defaultdict(list)
    for text, ngrams in ngrams_b.items():
        for gram in _rarest_ngrams(ngrams, counts, threshold):
            index[gram].append(text)
    pairs: list[TextPair] = []
    for text, positions in positions_a.items():
        ngrams = character_ngrams(text, size)
        if sum(gram in counts for gram in ngrams) < _min_overlap(ngrams, threshold):
            continue  # too few of its grams stand anywhere on the other side
        candidates = {
            other_text for gram in _rarest_ngrams(ngrams, counts, threshold) for other_text in index.get(gram, ())
        }
        for other_text in candidates:
            other_ngrams = ngrams_b[other_text]
            # The smaller set bounds what is shared, the larger what there is: most candidates are settled by size.
            if min(len(ngrams), len(other_ngrams)) < threshold * max(len(ngrams), len(other_ngrams)) * (1 - 1e-12):
                continue
            intersection = len(ngrams & other_ngrams)
            similarity = intersection / (len(ngrams) + len(other_ngrams) - intersection)
            if similarity >= threshold:
                pairs += [(i, j, similarity) for i in positions for j in positions_b[other_text]]
    return sorted(pairs)


def _min_overlap(ngrams: frozenset[str], threshold: float) -> int:
    """How many of its grams a set shares at least with one that is alike."""
    return math.ceil(threshold * len(ngrams) * (1 - 1e-12))


def _rarest_ngrams(ngrams: frozenset[str], counts: Counter[str], threshold: float) -> Iterator[str]:
    """The rarest grams of a set, as many as two sets that alike must have one of in common."""
    prefix_length = len(ngrams) - _min_overlap(ngrams, threshold) + 1
    return iter(sorted(ngrams, key=lambda gram: (counts[gram], gram))[:prefix_length])


def _positions(texts: Sequence[str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        if text:
            out[text].append(position)
    return out
