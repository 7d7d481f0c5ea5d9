"""Duplicates: the index finds what a loop over all pairs finds, and a recording is known again in another coding."""

import io
import string
from collections.abc import Callable

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jaccard

from undersong.corpora import near_duplicates
from undersong.corpora.audio_fingerprint import find_similar_fingerprints, fingerprint_clip
from undersong.corpora.decode import load_clip
from undersong.corpora.near_duplicates import (
    DuplicatePair,
    character_ngrams,
    count_duplicates,
    find_duplicates,
    find_similar_texts,
)
from undersong.types import Clip, Quarantined, Sample

Sound = Callable[..., bytes]
RATE = 16_000
phrases = st.lists(st.sampled_from(["how", "to", "pick", "a", "lock", "locks", "cake"]), max_size=6).map(" ".join)


@settings(derandomize=True, max_examples=150)
@given(
    a=st.lists(phrases, max_size=6),
    b=st.lists(phrases, max_size=6),
    threshold=st.sampled_from([0.1, 0.25, 0.5, 0.6, 2 / 3, 0.9, 1.0]),
    size=st.integers(1, 6),
)
def test_the_index_finds_what_a_loop_finds(a: list[str], b: list[str], threshold: float, size: int) -> None:
    def alike(x: str, y: str) -> float:
        left, right = character_ngrams(x, size), character_ngrams(y, size)
        return len(left & right) / len(left | right) if left and right else 0.0

    loop = [(i, j, alike(x, y)) for i, x in enumerate(a) for j, y in enumerate(b)]
    assert find_similar_texts(a, b, threshold, size) == [pair for pair in loop if pair[2] >= threshold]


@settings(derandomize=True)
@given(a=st.text(string.ascii_lowercase + " ", min_size=1), b=st.text(string.ascii_lowercase + " ", min_size=1))
def test_similarity_is_that_of_scipy(a: str, b: str) -> None:
    universe = sorted(character_ngrams(a) | character_ngrams(b))
    vectors = [[gram in character_ngrams(text) for gram in universe] for text in (a, b)]
    expected = 1 - jaccard(*vectors)
    found = find_similar_texts([a], [b], 1e-9)
    assert [similarity for *_, similarity in found] == pytest.approx([expected] if expected > 0 else [])


def test_grams() -> None:
    assert character_ngrams("ab", 3) == {" ab", "ab "}
    assert character_ngrams("a", 5) == {" a "}
    assert character_ngrams("") == frozenset()
    for wrong in (0, -1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="threshold"):
            find_similar_texts(["a"], ["a"], wrong)


def speech(seed: int, seconds: float = 1.5) -> np.ndarray:
    """Bursts of colored noise: like words, every seed other ones."""
    draws = np.random.default_rng(seed)
    wave = np.zeros(round(seconds * RATE))
    for start in range(0, wave.size - 3_200, 2_000):
        centre, width = draws.uniform(200, 3_500), draws.integers(1_200, 3_200)
        burst = draws.standard_normal(width) + 4 * np.sin(2 * np.pi * centre * np.arange(width) / RATE)
        wave[start : start + width] += draws.uniform(0.1, 1) * burst * np.hanning(width)
    return 0.5 * wave / np.abs(wave).max()


def coded(wave: np.ndarray, format: str = "WAV", subtype: str = "PCM_16", rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave, rate, format=format, subtype=subtype)
    return file.getvalue()


@pytest.mark.parametrize(
    ("format", "subtype"), [("MP3", "MPEG_LAYER_III"), ("OGG", "OPUS"), ("OGG", "VORBIS"), ("WAV", "ULAW")]
)
def test_a_recording_is_known_again_in_another_coding(format: str, subtype: str) -> None:
    waves = [speech(seed) for seed in range(12)]
    pause = np.zeros(4_000)
    there = [Clip(f"{i}", wave.astype(np.float32), RATE) for i, wave in enumerate(waves)]
    again = [
        load_clip(Sample("x", coded(np.concatenate([pause, 0.3 * wave, pause]), format, subtype))) for wave in waves
    ]
    prints, again_prints = ([fingerprint_clip(clip) for clip in clips] for clips in (there, again))
    found = find_similar_fingerprints(prints, again_prints, near_duplicates.AUDIO_THRESHOLD)
    assert [(i, j) for i, j, _ in found] == [(i, i) for i in range(12)]
    assert find_similar_fingerprints(prints, [], 0.5) == find_similar_fingerprints([], prints, 0.5) == []


def test_near_prints_are_what_a_loop_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("undersong.corpora.audio_fingerprint.BLOCK", 3)
    clips = [Clip("", speech(seed, 1 + seed % 3 / 8).astype(np.float32), RATE) for seed in range(8)]
    prints = [fingerprint_clip(clip) for clip in clips]
    mixed = [None, *prints]
    loop = [
        (i, j)
        for i, one in enumerate(mixed)
        for j, other in enumerate(prints)
        if one and other and one[0] @ other[0] >= 0.2 and abs(one[1] - other[1]) <= 0.1 * max(one[1], other[1])
    ]
    assert [(i, j) for i, j, _ in find_similar_fingerprints(mixed, prints, 0.2)] == loop
    assert 8 < len(loop) < 56


@pytest.mark.parametrize(
    "wave",
    [np.zeros(RATE), np.full(RATE, 0.3), np.zeros(0), np.ones(3), speech(0)[:5_000]],
    ids=["0", "c", "e", "3", "s"],
)
def test_what_does_not_sound_or_is_too_short_has_no_fingerprint(wave: np.ndarray) -> None:
    assert fingerprint_clip(Clip("a", wave.astype(np.float32), RATE)) is None


def test_sets_are_compared_by_sound_and_words() -> None:
    one, two, three = (speech(1) * 32_767).astype(np.int16), speech(2), speech(3)  # integers: every writer keeps them
    pool = [
        Sample("p1", coded(one), "How do I pick the lock?"),
        Sample("p2", coded(two), "bake a cake"),
        Sample("p3", text="Please explain how I could pick a lock tonight"),
        Sample("p4", b"broken"),
    ]
    harm = [
        Sample("h1", coded(one, "FLAC"), "said otherwise"),
        Sample("h2", coded(three), "how do i PICK the lock"),
        Sample("p2", coded(0.5 * two, "OGG", "VORBIS"), "nothing like it"),
    ]
    test = [
        Sample("t1", text="Please explain how I could pick a lock now"),
        Sample("t2", text="how do I pick the lock"),
    ]
    found, failed = find_duplicates({"pool": pool, "harm": harm, "test": test})
    assert [(s.set_a, s.item_a, s.set_b, s.item_b, s.kind) for s in found] == [
        ("pool", "p1", "harm", "h1", "same audio"),
        ("pool", "p1", "harm", "h2", "same text"),
        ("pool", "p2", "harm", "p2", "nearly the same audio"),
        ("pool", "p1", "test", "t2", "same text"),
        ("pool", "p3", "test", "t1", "nearly the same text"),
        ("harm", "h2", "test", "t2", "same text"),
    ]
    assert [item.similarity == 1 for item in found] == [True, True, False, True, False, True]
    assert [item.id for item in failed] == ["p4"]
    assert count_duplicates(found)[0] == ("pool", "harm", "same audio", 1)
    assert sum(count for *_, count in count_duplicates(found)) == len(found)


def test_without_listening_clips_are_the_same_by_the_hash_they_have() -> None:
    a, b = [Sample("a", "missing.wav", pcm_hash="1")], [Sample("b", "gone.wav", pcm_hash="1"), Sample("c", "x.wav")]
    assert find_duplicates({"a": a, "b": b}, audio_threshold=None) == (
        [DuplicatePair("a", "a", "b", "b", "same audio", 1.0)],
        [],
    )
    found, failed = find_duplicates({"a": a, "b": b})
    assert found == []
    assert [type(item) for item in failed] == [Quarantined] * 3
    assert find_duplicates({"a": a}, audio_threshold=None, text_threshold=None) == ([], [])
