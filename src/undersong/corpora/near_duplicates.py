"""What pool, harm and evaluation sets have in common, found before anything is trained: same or nearly the same items.

Knows samples and decodes their audio once; does not decide what a find means (`refuse_*` in overlap.py do).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

from undersong.corpora.alike.near import find_similar_texts
from undersong.corpora.audio_fingerprint import find_similar_fingerprints, fingerprint_clip
from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.corpora.overlap import normalized_words
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np

# Of letter 5-grams.  Between public harm sets, pairs from 0.6 to 1 are nearly all the same request in other words;
# in a world of few templates different requests reach 0.64, so there a higher one is needed.
TEXT_THRESHOLD = 0.6
# 190,000 pairs of different requests in shared templates stay below 0.91; 99 of 100 clips in another codec are above
# 0.95, nine of ten in noise at 10 dB.
AUDIO_THRESHOLD = 0.92
SAMPLE_RATE = 16_000
AudioKey: TypeAlias = "tuple[str, tuple[np.ndarray, float] | None]"
KINDS = ("same audio", "same text", "nearly the same text", "nearly the same audio")


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two items of two sets that are the same or nearly so: the first of KINDS that holds, and how alike they are."""

    set_a: str
    a: str
    set_b: str
    b: str
    kind: str
    similarity: float  # 1 for the same; Jaccard of letter n-grams; cosine of fingerprints


def find_duplicates(
    sets: Mapping[str, Sequence[Sample]],
    text_threshold: float | None = TEXT_THRESHOLD,
    audio_threshold: float | None = AUDIO_THRESHOLD,
    fingerprints: Mapping[str, Mapping[str, tuple[np.ndarray, float]]] | None = None,
) -> tuple[list[DuplicatePair], list[Quarantined]]:
    """Every pair of items from two different sets that share audio or text, by sets and then by the items' order.

    text, sound: from which similarity on texts (`near_texts`) and clips (`near_sounds`) count as nearly the same; None
    leaves that search out.  With `sound`, every clip is decoded once and its own hash is used; without, clips count as
    the same by the `pcm_hash` they have.  `prints`: fingerprints that are known already, by set and id; then no audio
    is opened, and clips without one are compared by their hash.
    Second value: items whose audio cannot be read, with the reason.
    """
    failed: list[Quarantined] = []
    decode_audio = audio_threshold is not None and fingerprints is None
    fingerprints_by_set = fingerprints or {}
    audio_keys = {
        name: [_audio_key(sample, decode_audio, failed, fingerprints_by_set.get(name, {})) for sample in samples]
        for name, samples in sets.items()
    }
    texts = {name: [" ".join(normalized_words(sample)) for sample in samples] for name, samples in sets.items()}
    duplicates: list[DuplicatePair] = []
    for first_set, second_set in combinations(sets, 2):
        pairs: dict[tuple[int, int], tuple[str, float]] = {}
        hashes = [[key for key, _ in audio_keys[name]] for name in (first_set, second_set)]
        for kind, keys in (("same audio", hashes), ("same text", [texts[first_set], texts[second_set]])):
            for pair in _equal_key_pairs(*keys):
                pairs.setdefault(pair, (kind, 1.0))
        if text_threshold is not None:
            for i, j, similarity in find_similar_texts(texts[first_set], texts[second_set], text_threshold):
                pairs.setdefault((i, j), ("nearly the same text", similarity))
        if audio_threshold is not None:
            first_fingerprints, second_fingerprints = (
                [fingerprint for _, fingerprint in audio_keys[name]] for name in (first_set, second_set)
            )
            for i, j, similarity in find_similar_fingerprints(first_fingerprints, second_fingerprints, audio_threshold):
                pairs.setdefault((i, j), ("nearly the same audio", similarity))
        a, b = sets[first_set], sets[second_set]
        duplicates += [DuplicatePair(first_set, a[i].id, second_set, b[j].id, *pairs[i, j]) for i, j in sorted(pairs)]
    return duplicates, failed


def count_duplicates(duplicates: Sequence[DuplicatePair]) -> list[tuple[str, str, str, int]]:
    """(set, other set, kind, pairs), for a table in a report."""
    counts = Counter((item.set_a, item.set_b, item.kind) for item in duplicates)
    return [(*key, count) for key, count in counts.items()]


def _audio_key(
    sample: Sample, decode_audio: bool, failed: list[Quarantined], fingerprints: Mapping[str, tuple[np.ndarray, float]]
) -> AudioKey:
    """What is known of a sample's sound: its hash and, if one is to listen, its fingerprint."""
    if sample.audio is None or not decode_audio:
        return sample.pcm_hash or "", fingerprints.get(sample.id)
    try:
        clip = load_clip(sample, SAMPLE_RATE)
    except UnreadableAudioError as error:
        failed.append(Quarantined(sample.id, error.reason))
        return "", None
    return pcm_hash(clip), fingerprint_clip(clip)


def _equal_key_pairs(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Places of equal and non-empty keys."""
    positions: dict[str, list[int]] = defaultdict(list)
    for j, key in enumerate(b):
        positions[key].append(j)
    return ((i, j) for i, key in enumerate(a) if key for j in positions.get(key, ()))
