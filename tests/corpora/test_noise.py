"""Noise: the SNR that was asked for is measured, draws depend on id and seed alone, clipping is scaled and recorded."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import welch

from undersong.corpora.decode import load_clip
from undersong.corpora.noise import (
    babble_noise,
    draw_offset,
    load_noise,
    mix_noise,
    pink_noise,
    seeded_generator,
    speech_level,
    with_noise,
)
from undersong.types import Clip, Sample, UndersongError

RATE = 16_000


def speech(ident: str = "a", seconds: float = 1.0, level: float = 0.1, pause: float = 0.0) -> Clip:
    """Random sound that begins after a pause."""
    wave = np.random.default_rng(7).standard_normal(round(seconds * RATE)) * level
    wave[: round(pause * RATE)] = 0
    return Clip(ident, wave.astype(np.float32), RATE)


def rms(signal: np.ndarray) -> float:
    return float(np.sqrt(np.mean(signal.astype(np.float64) ** 2)))


@settings(derandomize=True, max_examples=40)
@given(
    snr=st.floats(-20, 40),
    level=st.floats(1e-3, 0.3),
    noise_seconds=st.floats(0.05, 3),
    seed=st.integers(0, 2**70),
    kind=st.sampled_from(["active", "whole"]),
)
def test_the_measured_ratio_is_the_one_asked_for(
    snr: float, level: float, noise_seconds: float, seed: int, kind: str
) -> None:
    clip, noise = speech(level=level, pause=0.5), pink_noise(noise_seconds, RATE, 1)
    mixed = mix_noise(clip, noise, snr, seed, kind)
    added = mixed.clip.samples / mixed.scale - clip.samples
    told = clip.samples[8_000:] if kind == "active" else clip.samples
    assert 20 * np.log10(rms(told) / rms(added)) == pytest.approx(snr, abs=0.05 if snr < 35 else 0.3)
    assert np.abs(mixed.clip.samples).max() <= 0.99 + 1e-6
    again = np.resize(np.roll(noise.samples, -mixed.offset), clip.samples.size) * mixed.gain
    assert np.allclose(added, again, atol=1e-5 / mixed.scale)


def test_a_pause_does_not_make_speech_quieter() -> None:
    half = speech(pause=0.5)
    assert speech_level(half) == pytest.approx(rms(half.samples[8_000:]))
    assert speech_level(half, "whole") == pytest.approx(rms(half.samples))
    assert speech_level(Clip("short", half.samples[-5:], RATE)) == pytest.approx(rms(half.samples[-5:]))
    assert speech_level(Clip("none", np.zeros(RATE, np.float32), RATE)) == 0


def test_what_would_clip_is_scaled_and_recorded() -> None:
    mixed = mix_noise(speech(level=0.3), pink_noise(2, RATE, 0), -10, 0)
    assert mixed.scale < 1
    assert np.abs(mixed.clip.samples).max() == pytest.approx(0.99)
    assert mix_noise(speech(level=0.01), pink_noise(2, RATE, 0), 10, 0).scale == 1


def test_a_draw_depends_on_the_id_and_the_seed_alone() -> None:
    digest = int.from_bytes(hashlib.sha256(b"3\nclip-1").digest(), "big")
    assert draw_offset("clip-1", 3, 1_000_000) == np.random.Generator(np.random.PCG64(digest)).integers(0, 1_000_000)
    assert draw_offset("clip-1", 3, 1_000_000) == 945_274  # on every machine
    draws = {(ident, seed): draw_offset(ident, seed, 10**9) for ident in "abc" for seed in range(5)}
    assert len(set(draws.values())) == len(draws)
    many = [draw_offset(f"{i}", 0, 10) for i in range(2_000)]
    assert np.bincount(many, minlength=10).min() > 140  # uniform: 200 each, standard deviation 13
    assert draw_offset("a", 0, 1) == 0
    assert seeded_generator("a\n", 1).integers(0, 10**9) != seeded_generator("a", 1).integers(0, 10**9)


@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_pink_noise_falls_by_three_decibels_an_octave(rate: int) -> None:
    noise = pink_noise(20, rate, 5)
    hertz, power = welch(noise.samples, rate, nperseg=8_192)
    heard = (hertz > 40) & (hertz < 0.45 * rate)
    slope = np.polyfit(np.log10(hertz[heard]), np.log10(power[heard]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.05)
    assert rms(noise.samples) == pytest.approx(0.1, rel=1e-3)
    assert abs(noise.samples.mean()) < 1e-6
    assert np.array_equal(noise.samples, pink_noise(20, rate, 5).samples)
    assert not np.array_equal(noise.samples, pink_noise(20, rate, 6).samples)


def tone(ident: str, hertz: float, level: float) -> Clip:
    return Clip(ident, (level * np.sin(2 * np.pi * hertz * np.arange(RATE) / RATE)).astype(np.float32), RATE)


def test_babble_is_several_talkers_equally_loud_whatever_their_order() -> None:
    voices = [tone(f"{hertz}", hertz, level) for hertz, level in ((300, 0.5), (500, 0.01), (700, 0.1))]
    made = babble_noise([*voices, Clip("silent", np.zeros(9, np.float32), RATE)], 3, 0, talkers=3)
    spectrum = np.abs(np.fft.rfft(made.samples))
    assert [np.argsort(spectrum)[-3:].tolist().count(3 * hertz) for hertz in (300, 500, 700)] == [1, 1, 1]
    assert spectrum[[900, 1_500, 2_100]].std() < 0.01 * spectrum[900]
    assert np.array_equal(made.samples, babble_noise(voices[::-1], 3, 0, talkers=3).samples)
    assert not np.array_equal(made.samples, babble_noise(voices, 3, 1, talkers=3).samples)
    assert made.samples.size == 3 * RATE
    with pytest.raises(UndersongError, match=r"Babble of 4 needs.*there are 3"):
        babble_noise(voices, 1, 0, talkers=4)
    with pytest.raises(UndersongError, match="one rate"):
        babble_noise([*voices, Clip("x", voices[0].samples, 8_000)], 1, 0, talkers=3)


@pytest.mark.parametrize(
    ("clip", "noise", "snr", "level", "message"),
    [
        (speech(), Clip("n", np.ones(5, np.float32), 8_000), 0, "active", "'a' is at 16000 Hz and the noise at 8000"),
        (speech(), Clip("n", np.zeros(5, np.float32), RATE), 0, "active", "The noise 'n' is silent"),
        (Clip("a", np.zeros(5, np.float32), RATE), pink_noise(1, RATE, 0), 0, "active", "'a' is silent"),
        (speech(), pink_noise(1, RATE, 0), float("nan"), "active", "ratio is nan"),
        (speech(), pink_noise(1, RATE, 0), 0, "loud", "'loud'; choose from active, whole"),
    ],
)
def test_what_cannot_be_mixed_is_named(clip: Clip, noise: Clip, snr: float, level: str, message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        mix_noise(clip, noise, snr, 0, level)


def wav(clip: Clip) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, clip.samples, clip.rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


def test_a_noisy_corpus_keeps_its_items_and_says_how_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "cafe.wav").write_bytes(wav(pink_noise(1.5, 8_000, 2)))
    noise = load_noise(tmp_path / "cafe.wav")
    assert noise.rate == RATE
    silent = wav(Clip("s", np.zeros(RATE, np.float32), RATE))
    clean = Sample("a", wav(speech()), "hi", "ho", speaker="s", labels=(("accent", "nga"),), pcm_hash="old", seconds=9)
    corpus = [
        clean,
        Sample("b", wav(speech("b", level=0.5))),
        Sample("c", silent),
        Sample("d", b"x"),
        Sample("e", text="x"),
    ]
    kept, gone = with_noise(corpus, noise, 10, 3, tmp_path / "noisy")
    assert [sample.id for sample in kept] == ["a", "b"]
    assert {item.id: item.reason.split(" (")[0] for item in gone} == {
        "c": "the audio is silent",
        "d": "the audio is damaged or in an unknown format",
        "e": "there is no audio",
    }
    labels = dict(kept[0].labels)
    assert (kept[0].text, kept[0].answer, kept[0].speaker, labels["accent"]) == ("hi", "ho", "s", "nga")
    assert (kept[0].pcm_hash, kept[0].seconds) == (None, None)
    assert labels["noise"] == noise.id
    assert labels["noise_snr"] == "10"
    assert int(labels["noise_offset"]) == draw_offset("a", 3, noise.samples.size)
    expected = mix_noise(load_clip(clean), noise, 10, 3)
    assert np.abs(load_clip(kept[0]).samples - expected.clip.samples).max() < 1e-4  # 16 bit
    assert float(dict(kept[1].labels)["noise_scale"]) < 1 == float(labels["noise_scale"])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "noisy").iterdir()}
    assert len(written) == 2
    assert with_noise(corpus, noise, 10, 3, tmp_path / "noisy") == (kept, gone)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "noisy").iterdir()} == written
    other = [with_noise([clean], noise, *how, tmp_path / "noisy")[0][0].audio for how in ((5, 3), (10, 4))]
    assert len({kept[0].audio, *other}) == 3
    with pytest.raises(UndersongError, match="'a' has the label 'noise"):
        with_noise(kept, noise, 10, 3, tmp_path / "noisy")
