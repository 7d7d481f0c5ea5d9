"""Which sentences say nearly the same: nearly the same letters, or nearly the same words that carry the meaning.

Knows words; knows no set and no split.
"""

from __future__ import annotations

from collections.abc import Sequence

from undersong.corpora.near_duplicates import TEXT_THRESHOLD, find_similar_texts
from undersong.corpora.overlap import normalized_words
from undersong.types import Sample

NEAR = 0.5  # of the words that carry the meaning, on top of TEXT on letters
# How AdvBench asks: what is left says what is asked for.
MANNER = frozenset(
    "a an the of on in for to with how that which and or by from into can will your my me i be is are as at it its"
    " write create develop make give provide design show teach explain generate compose produce describe list outline"
    " detailed step guide tutorial instruction instructions article post blog social media message speech script program"
    " manual plan video email someone person people without using use way ways method methods strategy other others".split()
)


def plain(text: str) -> str:
    """The words as near-duplicates are looked for."""
    return " ".join(normalized_words(Sample("", text=text)))


def clusters(texts: Sequence[str]) -> list[int]:
    """A number for each text, the same for those that say nearly the same, directly or through others."""
    said = [plain(text) for text in texts]
    parent = list(range(len(texts)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near_pairs(said, said):
        parent[root(i)] = root(j)
    return [root(i) for i in range(len(texts))]


def near_pairs(a: Sequence[str], b: Sequence[str]) -> list[tuple[int, int]]:
    """Pairs of plain texts with nearly the same letters, or nearly the same words that carry the meaning."""
    pairs = {(i, j) for i, j, _ in find_similar_texts(a, b, TEXT_THRESHOLD)}
    meant = [
        [frozenset(_stem(word) for word in text.split() if word not in MANNER) for text in side] for side in (a, b)
    ]
    for i, one in enumerate(meant[0]):
        for j, other in enumerate(meant[1]):
            if one and other and len(one & other) / len(one | other) >= NEAR:
                pairs.add((i, j))
    return sorted(pairs)


def _stem(word: str) -> str:
    """A word without the endings by which requests differ: "bombs" and "bombing" are one."""
    for ending in ("ing", "ers", "er", "es", "s", "ed", "e"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)]
    return word
