"""A wave as Kimi-Audio's two ears take it: windows of log-mel frames, twice.  Knows nothing of weights or prompts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from undersong.models.kimi.audio_tokenizer import FRAMES_PER_STATE, STATES_PER_TOKEN, valid_token_mask
from undersong.types import UndersongError

FRAMES_PER_TOKEN = FRAMES_PER_STATE * STATES_PER_TOKEN  # mel frames
SAMPLES_PER_TOKEN = 160 * FRAMES_PER_TOKEN  # at 16 kHz with Whisper's hop: 12.5 tokens a second


def kimi_audio_inputs(
    waveform: np.ndarray, extractor: WhisperFeatureExtractor
) -> tuple[dict[str, torch.Tensor], list[int]]:
    """One clip -> the model's three sound tensors, and how many tokens each window has.

    `wave` (samples,) float32 mono at the extractor's rate; of no samples, nothing is made.  It is cut into windows of
    `extractor.chunk_length` seconds: `input_features` (windows, mels, frames of a whole window), `code_features`
    (windows, mels, frames) padded to the longest in whole tokens, `code_attention_mask` (windows, frames); each has
    ceil(samples / 1280) tokens.  Source: the release's two feature pipelines, which cut and pad in just these ways.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if waveform.ndim != 1:
        raise UndersongError(f"A clip of shape {waveform.shape} is no mono sound; give samples in one dimension.")
    if not len(waveform):
        return {}, []
    samples_per_token = extractor.hop_length * FRAMES_PER_TOKEN  # in samples
    window_samples = extractor.chunk_length * extractor.sampling_rate
    windows = [waveform[start : start + window_samples] for start in range(0, len(waveform), window_samples)]
    extractor_options: dict[str, Any] = {"sampling_rate": extractor.sampling_rate, "return_tensors": "pt"}
    whisper_features = extractor(windows, padding="max_length", **extractor_options)
    code_features = extractor(
        windows,
        padding="longest",
        pad_to_multiple_of=samples_per_token,
        return_attention_mask=True,
        **extractor_options,
    )
    token_counts = [math.ceil(len(window) / samples_per_token) for window in windows]
    mask_counts = valid_token_mask(code_features.attention_mask).sum(-1).tolist()
    if mask_counts != token_counts:
        raise UndersongError(
            f"The feature extractor counts {mask_counts} tokens where the samples make {token_counts}; "
            "give the whisper-large-v3 preprocessor of the release (hop 160, 16 kHz)."
        )
    tensors = {
        "input_features": whisper_features.input_features,
        "code_features": code_features.input_features,
        "code_attention_mask": code_features.attention_mask,
    }
    return tensors, token_counts
