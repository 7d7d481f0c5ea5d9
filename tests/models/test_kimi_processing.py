"""Windows of a clip as both ears take them, against the feature extractor called once a window."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_kimi
import torch
from transformers import WhisperFeatureExtractor

from undersong.models.kimi.processing import FRAMES_PER_TOKEN, SAMPLES_PER_TOKEN, kimi_audio_inputs
from undersong.types import UndersongError

SAMPLES = tiny_kimi.WINDOW * tiny_kimi.RATE


def clip(samples: int) -> np.ndarray:
    return tiny_kimi.wave(samples / tiny_kimi.RATE, 1)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 1279, 1280, 1281, 20_000, SAMPLES - 1, SAMPLES])
def test_one_window_has_a_token_for_every_1280_samples_or_part_of_them(samples):
    inputs, tokens = kimi_audio_inputs(clip(samples), tiny_kimi.extractor())
    assert tokens == [math.ceil(samples / 1280)]
    assert inputs["input_features"].shape == (1, tiny_kimi.MELS, 100 * tiny_kimi.WINDOW)
    frames = math.ceil(samples / 1280) * FRAMES_PER_TOKEN
    assert inputs["code_features"].shape == (1, tiny_kimi.MELS, frames)
    assert int(inputs["code_attention_mask"].sum()) == math.ceil(samples / 160)


@pytest.mark.parametrize(
    ("samples", "tokens"),
    [(SAMPLES + 1, [25, 1]), (2 * SAMPLES, [25, 25]), (2 * SAMPLES + 1280, [25, 25, 1]), (3 * SAMPLES - 1, [25] * 3)],
)
def test_a_long_clip_is_cut_into_whole_windows_and_nothing_is_lost(samples, tokens):
    wave = clip(samples)
    inputs, found = kimi_audio_inputs(wave, tiny_kimi.extractor())
    assert found == tokens
    assert sum(found) == math.ceil(samples / SAMPLES_PER_TOKEN)
    assert {len(tensor) for tensor in inputs.values()} == {len(tokens)}
    for i, whole in enumerate(inputs["input_features"]):
        window = wave[i * SAMPLES : (i + 1) * SAMPLES]
        alone = tiny_kimi.extractor()(window, sampling_rate=tiny_kimi.RATE, return_tensors="pt").input_features
        assert torch.allclose(whole, alone[0], atol=1e-6)
        assert int(inputs["code_attention_mask"][i].sum()) == math.ceil(len(window) / 160)


def test_a_last_window_is_padded_with_silence_to_the_longest_as_in_the_original():
    inputs, _ = kimi_audio_inputs(clip(SAMPLES + 5000), tiny_kimi.extractor())
    assert inputs["code_features"].shape[-1] == 100 * tiny_kimi.WINDOW
    silent = np.concatenate([clip(SAMPLES + 5000)[SAMPLES:], np.zeros(SAMPLES - 5000, np.float32)])
    alone = tiny_kimi.extractor()(silent, sampling_rate=tiny_kimi.RATE, return_tensors="pt").input_features
    assert torch.allclose(inputs["code_features"][1], alone[0], atol=1e-6)


def test_nothing_is_made_of_no_samples_and_two_channels_are_refused():
    assert kimi_audio_inputs(np.zeros(0, np.float32), tiny_kimi.extractor()) == ({}, [])
    with pytest.raises(UndersongError, match="no mono sound"):
        kimi_audio_inputs(np.zeros((2, 100), np.float32), tiny_kimi.extractor())


class Forgetful(WhisperFeatureExtractor):
    """Calls the last eighth of what it is given padding."""

    def __call__(self, *args: object, **kwargs: object) -> object:
        out = super().__call__(*args, **kwargs)
        if "attention_mask" in out:
            out["attention_mask"][:, -out["attention_mask"].shape[1] // 8 :] = 0
        return out


def test_a_feature_extractor_that_counts_otherwise_is_refused():
    forgetful = Forgetful(feature_size=tiny_kimi.MELS, chunk_length=tiny_kimi.WINDOW)
    with pytest.raises(UndersongError, match=r"counts \[22\] tokens where the samples make \[25\]"):
        kimi_audio_inputs(clip(SAMPLES), forgetful)
