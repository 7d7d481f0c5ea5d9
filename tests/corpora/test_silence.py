"""Silence and near-constant audio are flagged, quiet speech is not."""

import numpy as np
import pytest

from undersong.corpora.audio_metadata import apply_audio_metadata, decode_metadata
from undersong.corpora.decode import inaudible_reason
from undersong.types import Clip, Sample

RATE = 16_000
DRAWS = np.random.default_rng(0)


def clip(wave: np.ndarray, rate: int = RATE) -> Clip:
    return Clip("a", wave.astype(np.float32), rate)


def tone(seconds: float, level: float) -> np.ndarray:
    return level * np.sin(2 * np.pi * 200 * np.arange(round(seconds * RATE)) / RATE)


def click(n: int) -> np.ndarray:
    wave = np.zeros(n)
    wave[n // 2] = 1
    return wave


@pytest.mark.parametrize(
    ("wave", "reason"),
    [
        (np.zeros(RATE), "constant (0 throughout)"),
        (np.full(RATE, 0.25), "constant (0.25 throughout)"),
        (np.zeros(1), "constant"),
        (np.zeros(0), "no usable samples"),
        (np.array([np.nan, 1]), "no usable samples"),
        (1e-4 * DRAWS.standard_normal(RATE), "0.00 s of 1.00 s"),
        (0.5 + 1e-4 * DRAWS.standard_normal(RATE), "silent"),
        (np.repeat([0.1, -0.4, 0.3, 0.0], RATE // 4), "silent"),
        (click(RATE), "0.03 s of 1.00 s"),  # 1 s of nothing and a click
        (np.concatenate([tone(0.05, 0.5), np.zeros(RATE)]), "0.05 s"),
        (np.linspace(-0.01, 0.01, RATE), "silent"),  # a drift
    ],
)
def test_what_nobody_hears_is_flagged(wave: np.ndarray, reason: str) -> None:
    assert inaudible_reason(clip(wave)) is not None
    assert reason in str(inaudible_reason(clip(wave)))


@pytest.mark.parametrize(
    "wave",
    [
        tone(1, 0.003),
        np.concatenate([np.zeros(60 * RATE), tone(0.15, 0.1)]),
        0.4 + tone(1, 0.01),
        0.05 * DRAWS.standard_normal(RATE),
        tone(0.2, 1.0),
    ],
)
def test_what_can_be_heard_is_not(wave: np.ndarray) -> None:
    assert inaudible_reason(clip(wave)) is None
    assert inaudible_reason(clip(wave[::2], RATE // 2)) is None


def test_facts_of_other_items_are_not_taken_for_theirs() -> None:
    samples = [Sample("a", text="one"), Sample("b", text="two")]
    facts = list(decode_metadata(samples))
    assert apply_audio_metadata(samples, facts)[0] == tuple(samples)
    for wrong in (facts[::-1], facts[:1]):
        with pytest.raises(ValueError, match="do not belong to these samples"):
            apply_audio_metadata(samples, wrong)
