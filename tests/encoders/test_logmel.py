"""Log-mel statistics: the clip's own frames, the voice and not the gain, nothing for silence."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from undersong.corpora.decode import load_clip
from undersong.encoders import logmel
from undersong.encoders.logmel import logmel_encoder
from undersong.types import Quarantined, Sample, UndersongError


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_shape_and_frames(spoken) -> None:
    made = logmel_encoder().encode([spoken("a", 0.5), spoken("b", 0.025, pitch=200)])
    assert made.ids == ("a", "b")
    assert made.vectors.shape == (2, 160)
    assert made.vectors.dtype == np.float32
    assert made.frames.tolist() == [1 + (8000 - 400) // 160, 1]


def test_against_a_plain_fourier_transform(spoken) -> None:
    """The same numbers by hand: only frames that lie wholly inside the clip enter."""
    from transformers.audio_utils import mel_filter_bank

    sample = spoken("a", 0.333)
    signal = load_clip(sample).samples.astype(np.float64)
    signal /= np.abs(signal).max()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = np.stack([signal[s : s + 400] * window for s in range(0, len(signal) - 399, 160)])
    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    mel = np.log10(np.maximum(np.abs(np.fft.rfft(frames)) ** 2 @ filters, 1e-10))
    mel = np.maximum(mel, mel.max() - 8)
    expected = np.concatenate([mel.mean(axis=0) - mel.mean(), mel.std(axis=0)])
    made = logmel_encoder().encode([sample, spoken("b", 0.3, pitch=250)])
    assert np.allclose(made.vectors[0], expected, atol=1e-4)


@pytest.mark.parametrize("count", [400, 1_000, 16_000])
def test_frames_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

    filters = mel_filter_bank(201, 80, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    samples = np.random.default_rng(count).standard_normal(count)
    mel = spectrogram(
        samples, window_function(400, "hann"), 400, 160, power=2.0, center=False, mel_filters=filters,
        mel_floor=1e-10, log_mel="log10",
    ).T.astype(np.float64)  # fmt: skip
    monkeypatch.setattr(logmel, "FRAMES_PER_BLOCK", 7)  # which divides no count of frames
    np.testing.assert_array_equal(logmel._log_mel(samples), np.maximum(mel, mel.max() - 8))


def test_the_voice_matters_and_the_gain_does_not(spoken) -> None:
    samples = [
        spoken("low", 0.5),
        spoken("quiet", 0.5, gain=0.03),
        spoken("high", 0.7, pitch=310),
        spoken("long", 1.0, seed=1),
    ]
    low, quiet, high, long = logmel_encoder().encode(samples).vectors
    assert np.allclose(low, quiet, atol=1e-4)
    assert cosine(low, long) > cosine(low, high)


def test_independent_of_batch_and_order(spoken) -> None:
    samples = [spoken(f"s{i}", 0.1 + 0.07 * (i * 5 % 7), pitch=100 + 20 * i) for i in range(7)]
    together = logmel_encoder().encode(samples)
    assert together.ids == tuple(s.id for s in samples)
    for i, sample in enumerate(samples):
        alone = logmel_encoder().encode([sample])
        assert np.array_equal(alone.vectors[0], together.vectors[i])


def test_what_holds_no_sound_is_quarantined(spoken, silent) -> None:
    damaged = Sample("damaged", audio=b"no audio at all")
    short = replace(spoken("short", 0.02))
    made = logmel_encoder().encode(
        [spoken("a", 0.2), silent, Sample("mute", text="x"), damaged, short, spoken("b", 0.2, pitch=300)]
    )
    assert made.ids == ("a", "b")
    reasons = {item.id: item.reason for item in made.quarantined}
    assert reasons["silent"] == "the audio is constant (0 throughout)"
    assert reasons["mute"] == "no audio"
    assert reasons["short"] == "too short: no valid frame"
    assert set(reasons) == {"silent", "mute", "damaged", "short"}
    assert Quarantined("silent", "the audio is constant (0 throughout)") in made.quarantined


def test_a_hum_that_nobody_hears_is_no_vector(spoken, recorded) -> None:
    """Not constant, and still nothing: an encoder would give the recorder's noise a place among voices."""
    rng = np.random.default_rng(0)
    click = np.zeros(16_000)
    click[:400] = 0.5 * rng.standard_normal(400)
    odd = [recorded("hum", 1e-4 * rng.standard_normal(16_000)), recorded("click", click)]
    made = logmel_encoder().encode([spoken("a", 0.2), spoken("b", 0.2, pitch=300), *odd])
    assert made.ids == ("a", "b")
    assert [item.id for item in made.quarantined] == ["hum", "click"]
    assert all("above -60 dB" in item.reason for item in made.quarantined)


def test_the_same_clip_everywhere_stops(spoken) -> None:
    one = spoken("a", 0.2)
    with pytest.raises(UndersongError, match="same vector"):
        logmel_encoder().encode([one, replace(one, id="b"), replace(one, id="c")])


def test_hears_without_torch() -> None:
    code = (
        "import io, sys, numpy as np, soundfile\n"
        "from undersong.encoders.registry import make_encoder\n"
        "from undersong.types import Sample\n"
        "file = io.BytesIO()\n"
        "soundfile.write(file, np.random.default_rng(0).standard_normal(8000) / 9, 16000, format='WAV')\n"
        "made = make_encoder('logmel', fit=[]).encode([Sample('a', audio=file.getvalue())])\n"
        "print(made.ids, [m for m in ('torch', 'transformers', 'scipy', 'sklearn') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "('a',) []"
