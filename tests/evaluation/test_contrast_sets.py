"""What tells harmful from harmless prompts besides harm is told."""

from __future__ import annotations

from undersong.evaluation.contrast_sets import contrast_mismatches
from undersong.types import Sample


def side(words: int, seconds: float, voices: str, count: int = 12) -> list[Sample]:
    return [
        Sample(str(i), text=" ".join(["word"] * (words + i % 2)), seconds=seconds + 0.1 * (i % 3),
               speaker=voices[i % len(voices)])
        for i in range(count)
    ]  # fmt: skip


def test_alike_is_alike() -> None:
    assert list(contrast_mismatches(side(6, 2.0, "AB"), side(6, 2.02, "BA"), "the contrast sets")) == []


def test_each_difference_has_its_sentence() -> None:
    words, seconds, voices = contrast_mismatches(side(9, 2.0, "AB"), side(6, 1.5, "AC"), "the contrast sets")
    assert words.startswith("Harmful and benign prompts of the contrast sets differ in length (9.5 and 6.5 words, 6.0")
    assert "2.1 and 1.6 seconds" in seconds
    assert "different voices (50% would have to be exchanged)" in voices


def test_what_is_not_known_is_not_compared() -> None:
    bare = [Sample(str(i), text=None, audio="x.wav") for i in range(4)]
    assert list(contrast_mismatches(bare, side(6, 2.0, "A"), "them")) == []
    assert list(contrast_mismatches(bare, bare, "them")) == []
