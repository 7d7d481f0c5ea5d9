"""The internal encoder: a mean of what the model hears of a clip, in the clips' order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from undersong.encoders.clip_encoder import internal_encoder
from undersong.encoders.registry import make_encoder
from undersong.models.audio_features import mean_pool
from undersong.types import Clip, PooledVector, Quarantined


class Ears:
    """A model that hears one frame a 0.1 s: the loudness and the length so far."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        self.batches.append([clip.id for clip in clips])
        return [mean_pool(self._frames(clip)) for clip in clips]

    @staticmethod
    def _frames(clip: Clip) -> np.ndarray:
        frames = clip.samples[: len(clip.samples) // 1600 * 1600].reshape(-1, 1600)
        return np.stack([np.abs(frames).mean(axis=1), np.arange(1, len(frames) + 1)], axis=1).astype(np.float32)


def test_mean_of_valid_frames_in_order(spoken) -> None:
    samples = [spoken("long", 0.55), spoken("short", 0.2, gain=2), spoken("none", 0.05)]
    made = make_encoder("internal", fit=[], model=Ears()).encode(samples)
    assert made.ids == ("long", "short")
    assert made.frames.tolist() == [5, 2]
    assert made.vectors[:, 1].tolist() == [3.0, 1.5]
    assert made.quarantined == (Quarantined("none", "too short: no valid frame"),)


def test_clips_of_one_length_share_a_batch(spoken) -> None:
    ears = Ears()
    samples = [spoken(f"s{i}", 0.2 if i % 2 else 0.9, gain=1 + i) for i in range(6)]
    made = internal_encoder(ears, "af3", batch=3).encode(samples)
    assert ears.batches == [["s1", "s3", "s5"], ["s0", "s2", "s4"]]
    assert made.ids == tuple(s.id for s in samples)


def test_constant_model_stops(spoken) -> None:
    import pytest

    from undersong.types import UndersongError

    class Deaf(Ears):
        def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
            return [PooledVector(np.ones(4, np.float32), 3) for _ in clips]

    with pytest.raises(UndersongError, match="same vector"):
        internal_encoder(Deaf()).encode([spoken("a", 0.2), spoken("b", 0.3)])
