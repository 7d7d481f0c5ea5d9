"""Sounds as files of many kinds."""

import io
from collections.abc import Callable

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def sound() -> Callable[..., bytes]:
    """Encoded bytes of a tone: `sound(rate=…, channels=…, format=…, subtype=…, hertz=…, seconds=…)`."""

    def encode(
        rate: int = 16_000,
        channels: int = 1,
        format: str = "WAV",
        subtype: str = "PCM_16",
        hertz: float = 440.0,
        seconds: float = 0.5,
    ) -> bytes:
        time = np.arange(round(rate * seconds)) / rate
        wave = 0.5 * np.sin(2 * np.pi * hertz * time)
        file = io.BytesIO()
        soundfile.write(file, np.tile(wave[:, None], channels), rate, format=format, subtype=subtype)
        return file.getvalue()

    return encode
