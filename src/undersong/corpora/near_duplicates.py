"""Near-duplicate search between sample sets: exact Jaccard similarity of character n-grams, and audio fingerprints."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, TypeAlias

from undersong.corpora.audio_fingerprint import find_similar_fingerprints, fingerprint_clip
from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.corpora.overlap import normalized_words
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np


# In letters. It spans a short word and its blanks, so word order counts and one changed letter costs five n-grams.
NGRAM_SIZE = 5

TextPair = tuple[int, int, float]  # (index in a, index in b, similarity)


def character_ngrams(text: str, size: int = NGRAM_SIZE) -> frozenset[str]:
    """The n-grams of a text padded with one blank on each side.

    A text shorter than `size` is its own only n-gram; "" has none.
    """
    padded = f" {text} "
    if not text:
        return frozenset()
    return frozenset(padded[i : i + size] for i in range(max(1, len(padded) - size + 1)))


def find_similar_texts(a: Sequence[str], b: Sequence[str], threshold: float, size: int = NGRAM_SIZE) -> list[TextPair]:
    """Find all pairs of texts whose character n-grams have a Jaccard similarity of at least `threshold`.

    Equal texts are compared once. The search is exact, by prefix filtering (Bayardo et al. 2007, "Scaling up all pairs
    similarity search"): two similar sets share one of the rarest n-grams of each. Only those are indexed, and every
    candidate is then compared exactly.

    Args:
        a: The first texts.
        b: The second texts.
        threshold: Least similarity |A & B| / |A | B|, in (0, 1].
        size: Letters of an n-gram.

    Returns:
        Sorted (i, j, similarity).

    Raises:
        ValueError: `threshold` is outside (0, 1].
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"the threshold is {threshold}; it is above 0 and at most 1")
    if len(a) < len(b):  # index the smaller side, iterate over the larger
        return sorted((i, j, similarity) for j, i, similarity in find_similar_texts(b, a, threshold, size))
    positions_a, positions_b = _positions(a), _positions(b)
    ngrams_b = {text: character_ngrams(text, size) for text in positions_b}
    counts = Counter(gram for ngrams in ngrams_b.values() for gram in ngrams)  # any fixed order of rarity will do
    index: dict[str, list[str]] = defaultdict(list)
    for text, ngrams in ngrams_b.items():
        for gram in _rarest_ngrams(ngrams, counts, threshold):
            index[gram].append(text)
    pairs: list[TextPair] = []
    for text, positions in positions_a.items():
        ngrams = character_ngrams(text, size)
        if sum(gram in counts for gram in ngrams) < _min_overlap(ngrams, threshold):
            continue  # too few of its n-grams occur on the other side
        candidates = {
            other_text for gram in _rarest_ngrams(ngrams, counts, threshold) for other_text in index.get(gram, ())
        }
        for other_text in candidates:
            other_ngrams = ngrams_b[other_text]
            # The smaller set bounds the intersection, the larger the union: sizes alone rule out most candidates.
            if min(len(ngrams), len(other_ngrams)) < threshold * max(len(ngrams), len(other_ngrams)) * (1 - 1e-12):
                continue
            intersection = len(ngrams & other_ngrams)
            similarity = intersection / (len(ngrams) + len(other_ngrams) - intersection)
            if similarity >= threshold:
                pairs += [(i, j, similarity) for i in positions for j in positions_b[other_text]]
    return sorted(pairs)


def _min_overlap(ngrams: frozenset[str], threshold: float) -> int:
    """Least number of n-grams that a set shares with a similar one."""
    return math.ceil(threshold * len(ngrams) * (1 - 1e-12))


def _rarest_ngrams(ngrams: frozenset[str], counts: Counter[str], threshold: float) -> Iterator[str]:
    """The rarest n-grams of a set: any similar set has one of them among its own rarest."""
    prefix_length = len(ngrams) - _min_overlap(ngrams, threshold) + 1
    return iter(sorted(ngrams, key=lambda gram: (counts[gram], gram))[:prefix_length])


def _positions(texts: Sequence[str]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = defaultdict(list)
    for position, text in enumerate(texts):
        if text:
            out[text].append(position)
    return out


# Jaccard similarity of letter 5-grams. Between public harm sets, nearly all pairs from 0.6 to 1 are the same request in
# other words. With few templates, different requests reach 0.64, so the threshold must be higher there.
TEXT_THRESHOLD = 0.6
# 190,000 pairs of different requests in shared templates stay below 0.91; 99 of 100 clips in another codec are above
# 0.95, nine of ten in noise at 10 dB.
AUDIO_THRESHOLD = 0.92
SAMPLE_RATE = 16_000
AudioKey: TypeAlias = "tuple[str, tuple[np.ndarray, float] | None]"
KINDS = ("same audio", "same text", "nearly the same text", "nearly the same audio")


@dataclass(frozen=True, slots=True)
class DuplicatePair:
    """Two items of two sets that are equal or nearly so: the first of KINDS that holds, and their similarity."""

    set_a: str
    item_a: str
    set_b: str
    item_b: str
    kind: str
    similarity: float  # 1 for equal items; else Jaccard of letter n-grams, or cosine of fingerprints


def find_duplicates(
    sets: Mapping[str, Sequence[Sample]],
    text_threshold: float | None = TEXT_THRESHOLD,
    audio_threshold: float | None = AUDIO_THRESHOLD,
    fingerprints: Mapping[str, Mapping[str, tuple[np.ndarray, float]]] | None = None,
) -> tuple[list[DuplicatePair], list[Quarantined]]:
    """Find all pairs of items of two different sets that share audio or text, sorted by sets and then by items.

    Args:
        sets: The samples by name of the set.
        text_threshold: Least similarity of texts (`find_similar_texts`) to count as nearly the same; None: no search.
        audio_threshold: The same for clips (`find_similar_fingerprints`). Every clip is decoded once and its own hash
            is used. If None, clips are the same if their `pcm_hash` is.
        fingerprints: Known fingerprints, by set and id. Then no audio is opened, and clips without a fingerprint are
            compared by their hash.

    Returns:
        The pairs, and the items whose audio cannot be read.
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
    """Count the pairs by kind: (set, other set, kind, pairs), for a table in a report."""
    counts = Counter((item.set_a, item.set_b, item.kind) for item in duplicates)
    return [(*key, count) for key, count in counts.items()]


def _audio_key(
    sample: Sample, decode_audio: bool, failed: list[Quarantined], fingerprints: Mapping[str, tuple[np.ndarray, float]]
) -> AudioKey:
    """Hash of a sample's audio and, if audio is compared, its fingerprint."""
    if sample.audio is None or not decode_audio:
        return sample.pcm_hash or "", fingerprints.get(sample.id)
    try:
        clip = load_clip(sample, SAMPLE_RATE)
    except UnreadableAudioError as error:
        failed.append(Quarantined(sample.id, error.reason))
        return "", None
    return pcm_hash(clip), fingerprint_clip(clip)


def _equal_key_pairs(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Positions of equal, non-empty keys."""
    positions: dict[str, list[int]] = defaultdict(list)
    for j, key in enumerate(b):
        positions[key].append(j)
    return ((i, j) for i, key in enumerate(a) if key for j in positions.get(key, ()))
