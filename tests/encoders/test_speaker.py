"""The speaker encoder: the package's own numbers, a vector of the clip alone, weights that are named and hashed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from undersong.corpora.decode import load_clip
from undersong.encoders import speaker
from undersong.encoders.registry import encoder_weights_hash, make_encoder
from undersong.encoders.spec import parse_encoder
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random network in the package's layout."""
    torch.manual_seed(0)
    lstm, linear = torch.nn.LSTM(40, 256, 3, batch_first=True), torch.nn.Linear(256, 256)
    state = {f"lstm.{name}": value for name, value in lstm.state_dict().items()}
    state["lstm.weight_ih_l0"] = state["lstm.weight_ih_l0"] * 5  # power of quiet speech is small
    for layer in range(3):
        state[f"lstm.bias_ih_l{layer}"][256:512] = 8.0  # forgets nothing: a clip shorter than a window ends in silence
    state |= {f"linear.{name}": value for name, value in linear.state_dict().items()}
    state["similarity_weight"] = torch.ones(1)  # of the training loss, and in the package's file
    folder = tmp_path_factory.mktemp("speaker")
    torch.save({"model_state": state, "step": 1}, folder / speaker.WEIGHTS_FILE)
    return folder


def of_package() -> Path:
    """The package's folder; skips where it cannot be imported."""
    for name in ("resemblyzer", "librosa", "webrtcvad"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed (pip install resemblyzer)")
    return speaker.speaker_weights_file().parent


def test_equal_to_the_package(spoken, recorded) -> None:
    """Its own mel and network on the same samples, at the loudness that both bring a clip to."""
    folder = of_package()
    from resemblyzer import VoiceEncoder

    theirs = VoiceEncoder("cpu", verbose=False)
    samples = [spoken(f"s{i}", seconds, pitch=90.0 + 30 * i) for i, seconds in enumerate((0.4, 1.6, 2.37, 3.2, 6.9))]
    made = make_encoder(f"speaker:{folder}", fit=()).encode(samples)
    for sample, vector in zip(samples, made.vectors, strict=True):
        signal = load_clip(sample).samples
        signal = signal * np.float32(speaker.TARGET_RMS / np.sqrt(np.mean(np.square(signal, dtype=np.float64))))
        assert np.allclose(vector / np.linalg.norm(vector), theirs.embed_utterance(signal), atol=2e-5)


@given(st.integers(1, 20 * speaker.RATE))
def test_windows_cover_a_clip(samples: int) -> None:
    starts, end = speaker.window_starts(samples), samples / speaker.HOP
    assert starts == [speaker.WINDOW_STEP * i for i in range(len(starts))]
    left_out = end - (starts[-1] + speaker.WINDOW_FRAMES)
    assert left_out < speaker.MIN_COVERAGE * speaker.WINDOW_FRAMES
    assert len(starts) == 1 or end - starts[-1] >= speaker.MIN_COVERAGE * speaker.WINDOW_FRAMES


def test_the_mel_is_a_plain_fourier_transform(weights: Path, spoken) -> None:
    """By hand: power of frames around multiples of 10 ms, silence beyond the ends, no logarithm."""
    from transformers.audio_utils import mel_filter_bank

    signal = load_clip(spoken("a", 0.5)).samples.astype(np.float64)
    signal *= speaker.TARGET_RMS / np.sqrt(np.mean(signal**2))
    (window,) = speaker._cut_windows(load_clip(spoken("a", 0.5)).samples)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    padded = np.pad(signal, (200, 160 * 160))
    frames = np.stack([padded[160 * i : 160 * i + 400] * hann for i in range(160)])
    filters = mel_filter_bank(201, 40, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney")
    expected = np.abs(np.fft.rfft(frames)) ** 2 @ filters
    assert window.values.shape == (160, 40)
    assert np.allclose(window.values, expected, rtol=1e-4, atol=1e-9)


def test_a_vector_is_of_its_clip_alone(weights: Path, spoken, silent) -> None:
    samples = [spoken(f"s{i}", 0.2 + 0.9 * (i * 3 % 5), pitch=100.0 + 25 * i) for i in range(5)]
    encoder = make_encoder(f"speaker:{weights}", fit=())
    together = encoder.encode([*samples, silent])
    alone = encoder.encode([samples[2], samples[0]])
    assert [item.id for item in together.quarantined] == ["silent"]
    assert np.allclose(together.vectors[[2, 0]], alone.vectors, atol=1e-6)
    assert together.vectors.shape == (5, 256)
    assert together.frames.tolist() == [len(speaker.window_starts(load_clip(s).samples.size)) for s in samples]
    quiet = encoder.encode([spoken("s2", 1.1, pitch=150.0, gain=0.1), samples[0]])
    assert np.allclose(quiet.vectors[0], together.vectors[2], atol=1e-4)


def test_too_short_is_quarantined(weights: Path, recorded) -> None:
    made = make_encoder(f"speaker:{weights}", fit=()).encode([recorded("blink", np.sin(np.arange(300)))])
    assert [(item.id, item.reason) for item in made.quarantined] == [("blink", "too short: no valid frame")]


def test_its_key_holds_the_weights(weights: Path, tmp_path: Path) -> None:
    (tmp_path / speaker.WEIGHTS_FILE).write_bytes((weights / speaker.WEIGHTS_FILE).read_bytes())
    same, here = (encoder_weights_hash(parse_encoder(f"speaker:{folder}")) for folder in (tmp_path, weights))
    assert same == here
    torch.save({"model_state": {}}, tmp_path / speaker.WEIGHTS_FILE)
    assert encoder_weights_hash(parse_encoder(f"speaker:{tmp_path}")) != here
    assert encoder_weights_hash(parse_encoder("tfidf")) is None
    absent = parse_encoder(f"speaker:{tmp_path / 'absent'}")
    assert encoder_weights_hash(absent, allow_missing=True) is not None  # a plan goes on without
    with pytest.raises(UndersongError, match="no pretrained"):
        encoder_weights_hash(absent)


def test_what_holds_no_network_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UndersongError, match=r"no pretrained\.pt"):
        make_encoder(f"speaker:{tmp_path}", fit=())
    torch.save({"model_state": {"linear.weight": torch.ones(2)}}, tmp_path / speaker.WEIGHTS_FILE)
    with pytest.raises(UndersongError, match="no speaker encoder"):
        make_encoder(f"speaker:{tmp_path}", fit=())
    torch.save(torch.zeros(3), tmp_path / speaker.WEIGHTS_FILE)
    with pytest.raises(UndersongError, match="no speaker encoder"):
        make_encoder(f"speaker:{tmp_path}", fit=())
    for cut in (b"no weights", b"junk", b""):
        (tmp_path / speaker.WEIGHTS_FILE).write_bytes(cut)
        with pytest.raises(UndersongError, match="no speaker encoder"):
            make_encoder(f"speaker:{tmp_path}", fit=())
    monkeypatch.setattr(speaker, "find_spec", lambda _name: None)
    with pytest.raises(UndersongError, match="pip install --no-deps resemblyzer"):
        make_encoder("speaker", fit=())


def test_code_in_the_file_is_not_run(tmp_path: Path) -> None:
    class Runs:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"model_state": Runs()}, tmp_path / speaker.WEIGHTS_FILE)
    with pytest.raises(UndersongError, match="no speaker encoder"):
        make_encoder(f"speaker:{tmp_path}", fit=())
    assert not (tmp_path / "ran").exists()
