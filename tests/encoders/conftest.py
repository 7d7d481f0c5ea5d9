"""Clips made here: a voice is a set of harmonics, so that every test knows what is heard."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile

from undersong.types import Sample

RATE = 16_000


def wav(signal: np.ndarray, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, signal, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture
def spoken():
    """(id, seconds, pitch, gain) -> a sample whose audio is a buzz at that pitch in a little noise."""

    def make(id: str, seconds: float, pitch: float = 120.0, gain: float = 1.0, seed: int = 0) -> Sample:
        time = np.arange(round(seconds * RATE)) / RATE
        buzz = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 20))
        noise = np.random.default_rng(seed).standard_normal(len(time))
        return Sample(id, audio=wav((gain * (0.1 * buzz + 0.01 * noise)).astype(np.float32)))

    return make


@pytest.fixture
def silent():
    return Sample("silent", audio=wav(np.zeros(RATE, np.float32)))


@pytest.fixture
def recorded():
    """(id, samples at RATE) -> a sample."""
    return lambda id, signal: Sample(id, audio=wav(np.asarray(signal, np.float32)))
