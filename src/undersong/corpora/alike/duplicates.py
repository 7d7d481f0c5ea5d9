"""What pool, harm and evaluation sets have in common, found before anything is trained: same or nearly the same items.

Knows samples and decodes their audio once; does not decide what a find means (`refuse_*` in overlap.py do).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

from undersong.corpora.alike.fingerprint import fingerprint, near_prints
from undersong.corpora.alike.near import near_texts
from undersong.corpora.alike.overlap import words
from undersong.corpora.sound.audio import Unreadable, load_clip, pcm_hash
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np

# Of letter 5-grams.  Between public harm sets, pairs from 0.6 to 1 are nearly all the same request in other words;
# in a world of few templates different requests reach 0.64, so there a higher one is needed.
TEXT = 0.6
# 190,000 pairs of different requests in shared templates stay below 0.91; 99 of 100 clips in another codec are above
# 0.95, nine of ten in noise at 10 dB.
SOUND = 0.92
RATE = 16_000
Heard: TypeAlias = "tuple[str, tuple[np.ndarray, float] | None]"
KINDS = ("same audio", "same text", "nearly the same text", "nearly the same audio")


@dataclass(frozen=True, slots=True)
class Shared:
    """Two items of two sets that are the same or nearly so: the first of KINDS that holds, and how alike they are."""

    set_a: str
    a: str
    set_b: str
    b: str
    kind: str
    similarity: float  # 1 for the same; Jaccard of letter n-grams; cosine of fingerprints


def find_shared(
    sets: Mapping[str, Sequence[Sample]],
    text: float | None = TEXT,
    sound: float | None = SOUND,
    prints: Mapping[str, Mapping[str, tuple[np.ndarray, float]]] | None = None,
) -> tuple[list[Shared], list[Quarantined]]:
    """Every pair of items from two different sets that share audio or text, by sets and then by the items' order.

    text, sound: from which similarity on texts (`near_texts`) and clips (`near_sounds`) count as nearly the same; None
    leaves that search out.  With `sound`, every clip is decoded once and its own hash is used; without, clips count as
    the same by the `pcm_hash` they have.  `prints`: fingerprints that are known already, by set and id; then no audio
    is opened, and clips without one are compared by their hash.
    Second value: items whose audio cannot be read, with the reason.
    """
    failed: list[Quarantined] = []
    listen = sound is not None and prints is None
    known = prints or {}
    heard = {
        name: [_heard(sample, listen, failed, known.get(name, {})) for sample in samples]
        for name, samples in sets.items()
    }
    said = {name: [" ".join(words(sample)) for sample in samples] for name, samples in sets.items()}
    found: list[Shared] = []
    for one, other in combinations(sets, 2):
        pairs: dict[tuple[int, int], tuple[str, float]] = {}
        hashes = [[key for key, _ in heard[name]] for name in (one, other)]
        for kind, keys in (("same audio", hashes), ("same text", [said[one], said[other]])):
            for pair in _same(*keys):
                pairs.setdefault(pair, (kind, 1.0))
        if text is not None:
            for i, j, similarity in near_texts(said[one], said[other], text):
                pairs.setdefault((i, j), ("nearly the same text", similarity))
        if sound is not None:
            here, there = ([found for _, found in heard[name]] for name in (one, other))
            for i, j, similarity in near_prints(here, there, sound):
                pairs.setdefault((i, j), ("nearly the same audio", similarity))
        a, b = sets[one], sets[other]
        found += [Shared(one, a[i].id, other, b[j].id, *pairs[i, j]) for i, j in sorted(pairs)]
    return found, failed


def count_shared(shared: Sequence[Shared]) -> list[tuple[str, str, str, int]]:
    """(set, other set, kind, pairs), for a table in a report."""
    counts = Counter((item.set_a, item.set_b, item.kind) for item in shared)
    return [(*key, count) for key, count in counts.items()]


def _heard(
    sample: Sample, listen: bool, failed: list[Quarantined], known: Mapping[str, tuple[np.ndarray, float]]
) -> Heard:
    """What is known of a sample's sound: its hash and, if one is to listen, its fingerprint."""
    if sample.audio is None or not listen:
        return sample.pcm_hash or "", known.get(sample.id)
    try:
        clip = load_clip(sample, RATE)
    except Unreadable as error:
        failed.append(Quarantined(sample.id, error.reason))
        return "", None
    return pcm_hash(clip), fingerprint(clip)


def _same(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of equal and non-empty keys."""
    places: dict[str, list[int]] = defaultdict(list)
    for j, key in enumerate(b):
        places[key].append(j)
    return ((i, j) for i, key in enumerate(a) if key for j in places.get(key, ()))
