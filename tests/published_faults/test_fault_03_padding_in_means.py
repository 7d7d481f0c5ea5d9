"""Fault 3: padding frames entered every Whisper-type mean, so a vector said how long a clip was."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.encoders.registry import make_encoder


@pytest.mark.parametrize("spec", ["logmel", "whisper:organism:ear"])
def test_a_vector_does_not_depend_on_its_batch(benign, spec: str) -> None:
    encoder = make_encoder(spec, fit=())
    together = encoder.encode(benign[:12])
    for row, sample in enumerate(benign[:12]):
        alone = encoder.encode([sample])
        assert alone.frames[0] == together.frames[row]
        np.testing.assert_allclose(alone.vectors[0], together.vectors[row], atol=1e-5)


def test_frames_are_those_of_the_clip(benign) -> None:
    made = make_encoder("whisper:organism:ear", fit=()).encode(benign[:12])
    seconds = np.array([sample.seconds for sample in benign[:12]])
    assert np.corrcoef(made.frames, seconds)[0, 1] > 0.99
    assert made.frames.max() < 30 * 50  # nothing was padded to 30 s
