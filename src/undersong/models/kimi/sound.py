"""A wave as Kimi-Audio's two ears take it: windows of log-mel frames, twice.  Knows nothing of weights or prompts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from undersong.models.kimi.codes import FRAMES_A_STATE, STATES_A_TOKEN, valid_tokens
from undersong.types import UndersongError

FRAMES_A_TOKEN = FRAMES_A_STATE * STATES_A_TOKEN  # mel frames
SAMPLES_A_TOKEN = 160 * FRAMES_A_TOKEN  # at 16 kHz with Whisper's hop: 12.5 tokens a second


def kimi_sound(wave: np.ndarray, extractor: WhisperFeatureExtractor) -> tuple[dict[str, torch.Tensor], list[int]]:
    """One clip -> the model's three sound tensors, and how many tokens each window has.

    `wave` (samples,) float32 mono at the extractor's rate; of no samples, nothing is made.  It is cut into windows of
    `extractor.chunk_length` seconds: `input_features` (windows, mels, frames of a whole window), `code_features`
    (windows, mels, frames) padded to the longest in whole tokens, `code_attention_mask` (windows, frames); each has
    ceil(samples / 1280) tokens.  Source: the release's two feature pipelines, which cut and pad in just these ways.
    """
    wave = np.asarray(wave, dtype=np.float32)
    if wave.ndim != 1:
        raise UndersongError(f"A clip of shape {wave.shape} is no mono sound; give samples in one dimension.")
    if not len(wave):
        return {}, []
    token = extractor.hop_length * FRAMES_A_TOKEN  # in samples
    length = extractor.chunk_length * extractor.sampling_rate
    windows = [wave[start : start + length] for start in range(0, len(wave), length)]
    rate: dict[str, Any] = {"sampling_rate": extractor.sampling_rate, "return_tensors": "pt"}
    whole = extractor(windows, padding="max_length", **rate)
    codes = extractor(windows, padding="longest", pad_to_multiple_of=token, return_attention_mask=True, **rate)
    tokens = [math.ceil(len(window) / token) for window in windows]
    counted = valid_tokens(codes.attention_mask).sum(-1).tolist()
    if counted != tokens:
        raise UndersongError(
            f"The feature extractor counts {counted} tokens where the samples make {tokens}; "
            "give the whisper-large-v3 preprocessor of the release (hop 160, 16 kHz)."
        )
    sound = {
        "input_features": whole.input_features,
        "code_features": codes.input_features,
        "code_attention_mask": codes.attention_mask,
    }
    return sound, tokens
