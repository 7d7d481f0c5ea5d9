"""What two corpora share: the same audio, the same words, the same behaviour, or nearly the same words.

Proximity must not be measured to the prompts that JSR is measured on, and a harmful prompt must not be in the pool.
Ids say nothing here: they may repeat across corpora.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence

from undersong.types import Sample, UndersongError

HELD_OUT = ("audio", "text", "group")  # what a held-out item and one that something was fitted on must not share
WHY = {"audio": "same audio", "text": "same text", "group": "same group", "near": "nearly the same text"}


def overlap(
    a: Sequence[Sample], b: Sequence[Sample], kinds: Sequence[str] = tuple(WHY), threshold: float = 0.9
) -> list[tuple[str, str, str]]:
    """(id in a, id in b, why) of every pair that shares something, in the order of `a` and then of `b`.

    `why` says the first of `kinds` that holds, in words.  `audio`: equal pcm_hash (known once a corpus was examined);
    `text`: equal but for case, punctuation and blanks; `group`: equal, where both have one; `near`: the Jaccard
    similarity of the two sets of words is at least `threshold` (which compares every text of a with every one of b).
    """
    if unknown := set(kinds) - set(WHY):
        raise ValueError(f"unknown kind of overlap {sorted(unknown)}; choose from {[*WHY]}")
    why: dict[tuple[int, int], str] = {}
    keys = {"audio": lambda sample: sample.pcm_hash, "text": words, "group": lambda sample: sample.group}
    for kind in kinds:
        found = _near(a, b, threshold) if kind == "near" else _equal(a, b, keys[kind])
        for pair in found:
            why.setdefault(pair, kind)
    return [(a[i].id, b[j].id, WHY[kind]) for (i, j), kind in sorted(why.items())]


def refuse_shared_behaviour(reference: Sequence[Sample], test: Sequence[Sample], threshold: float = 0.9) -> None:
    """UndersongError where the reference harm set and the test harm set share an item, a behaviour or nearly a text."""
    _refuse(overlap(reference, test, threshold=threshold), "The reference harm set", "the test harm set")


def refuse_shared_items(
    pool: Sequence[Sample],
    others: Sequence[Sample],
    name: str = "the harm set",
    a: str = "The pool",
    kinds: Sequence[str] = ("audio", "text"),
) -> None:
    """UndersongError where the pool (called `a`) holds an item of another set (`name`), by its audio or its words."""
    _refuse(overlap(pool, others, kinds), a, name)


def _refuse(shared: list[tuple[str, str, str]], a: str, b: str) -> None:
    if shared:
        one, other, why = shared[0]
        pairs = f"{len(shared)} pairs of items, the first {one!r} and {other!r} ({why})"
        raise UndersongError(f"{a} and {b} overlap in {pairs}; remove one of each pair.")


def words(sample: Sample) -> tuple[str, ...]:
    """The words of a sample's text as compared: case, punctuation, symbols and width forms taken out."""
    text = unicodedata.normalize("NFKC", sample.text or "").casefold().replace("'", "").replace("’", "")
    return tuple(text.translate(_SPOKEN).split())


class _Spoken(dict[int, int]):
    """Each letter, mark and number as itself, everything else as a blank.

    By category, not \\w: vowel signs of Indic scripts are marks, and without them different words would be equal.
    """

    def __missing__(self, code: int) -> int:
        self[code] = code if unicodedata.category(chr(code))[0] in "LMN" else ord(" ")
        return self[code]


_SPOKEN = _Spoken()


def _equal(a: Sequence[Sample], b: Sequence[Sample], key: Callable[[Sample], object]) -> list[tuple[int, int]]:
    """Pairs of positions whose keys are equal and not empty."""
    places: dict[object, list[int]] = defaultdict(list)
    for j, sample in enumerate(b):
        places[key(sample)].append(j)
    return [(i, j) for i, sample in enumerate(a) if (k := key(sample)) for j in places.get(k, ())]


def _near(a: Sequence[Sample], b: Sequence[Sample], threshold: float) -> list[tuple[int, int]]:
    """Pairs of positions whose sets of words are alike; texts said in several voices are compared once."""
    left, right = _by_words(a), _by_words(b)
    return [
        (i, j)
        for one, here in left.items()
        for other, there in right.items()
        # The smaller set bounds the intersection, the larger the union: most pairs are settled by their sizes.
        if min(len(one), len(other)) / max(len(one), len(other)) >= threshold
        and len(one & other) / len(one | other) >= threshold
        for i in here
        for j in there
    ]


def _by_words(samples: Sequence[Sample]) -> dict[frozenset[str], list[int]]:
    out: dict[frozenset[str], list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        if spoken := frozenset(words(sample)):
            out[spoken].append(i)
    return out
