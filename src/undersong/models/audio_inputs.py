"""Conversion of a clip to the tensors of a family's forward pass, with one preparation function per kind of windowing
and padding. It uses the feature extractor alone, one clip at a time, and matches the family's own processor bit for
bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class AudioInputs:
    """Inputs of one clip: `tensors` of the forward pass, valid feature `frames` of every window, and the `width` of a
    window.

    The width counts the frames of a window with its padding.
    """

    tensors: dict[str, torch.Tensor]
    frames: tuple[int, ...]
    width: int


EMPTY_INPUTS = AudioInputs({}, (0,), 0)  # for a clip that the extractor cannot take

# (feature extractor, samples (n,) float32 at its rate) -> inputs
InputPreparation = Callable[[Any, np.ndarray], AudioInputs]


def prepare_padded_windows(mask_name: str) -> InputPreparation:
    """Windows of the extractor's `chunk_length`, padded to their end, with a mask (windows, frames) named `mask_name`.

    For Audio Flamingo 3 and MusicFlamingo (windows of 30 s) and Qwen2-Audio (one such window). Two frames (20 ms) over
    the end of a window make no placeholder. They are left out, because MusicFlamingo's clock fails on them.
    """

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        window_samples = extractor.chunk_length * extractor.sampling_rate
        starts = range(0, max(1, len(waveform) - 2 * extractor.hop_length), window_samples)
        features = extractor(
            [waveform[start : start + window_samples] for start in starts],
            sampling_rate=extractor.sampling_rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = tuple(features["attention_mask"].sum(1).tolist())
        return AudioInputs(
            {"input_features": features["input_features"], mask_name: features["attention_mask"]},
            frames,
            _frame_count(features),
        )

    return prepare


def prepare_trimmed(mask_name: str) -> InputPreparation:
    """One row as long as the clip, computed as if padded to the extractor's maximum, with a mask (1, frames).

    For Qwen2.5-Omni, whose processor pads every clip to 300 s (15 MB), although the model reads only the valid frames.
    A frame depends on 200 samples to each side, so 400 zeros after the clip give the same valid frames as 300 s. The
    minimum is one second, because shorter matrix products round differently.
    """

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        import torch

        hop = extractor.hop_length
        frames = -(-len(waveform) // hop)
        padded_length = min(max((frames + 3) * hop, extractor.sampling_rate), extractor.n_samples)
        output = extractor(
            np.pad(waveform, (0, padded_length - len(waveform))),
            sampling_rate=extractor.sampling_rate,
            padding="do_not_pad",
            truncation=False,
            return_tensors="pt",
        )
        features = output["input_features"][..., :frames]
        return AudioInputs(
            {"input_features": features, mask_name: torch.ones(1, frames, dtype=torch.long)}, (frames,), frames
        )

    return prepare


def prepare_unpadded(mask_name: str) -> InputPreparation:
    """One row as long as the clip, without padding, with a mask (1, frames). For Qwen3-Omni."""

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        if len(waveform) <= extractor.n_fft // 2:  # too short for the extractor to reflect its end
            return EMPTY_INPUTS
        features = extractor(
            waveform,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = tuple(features["attention_mask"].sum(1).tolist())
        return AudioInputs(
            {"input_features": features["input_features"], mask_name: features["attention_mask"]},
            frames,
            _frame_count(features),
        )

    return prepare


def prepare_split_windows() -> InputPreparation:
    """The whole clip padded to a multiple of the window, its features then cut; no mask. For Voxtral.

    The features differ from those of separate windows: their scale is set by the loudest frame of the whole clip.
    """

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        window_samples = extractor.chunk_length * extractor.sampling_rate
        output = extractor(
            waveform,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=window_samples,
            return_tensors="pt",
        )
        width = window_samples // extractor.hop_length
        features = output["input_features"].reshape(extractor.feature_size, -1, width).transpose(0, 1)
        frames = -(-len(waveform) // extractor.hop_length)
        valid_frames = tuple(min(width, frames - i * width) for i in range(len(features)))
        return AudioInputs({"input_features": features}, valid_frames, width)

    return prepare


def prepare_with_extractor() -> InputPreparation:
    """The extractor's own tensors of a single clip. For Phi-4-multimodal, which drops incomplete frames."""

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        if len(waveform) < extractor.win_length:  # the extractor would make a negative number of frames
            return EMPTY_INPUTS
        output = extractor(waveform, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        frames = output["audio_input_features"].shape[1]
        return AudioInputs(dict(output), (frames,), frames)

    return prepare


def prepare_kimi() -> InputPreparation:
    """Whisper features and those of the semantic tokenizer, window by window. For Kimi-Audio."""

    def prepare(extractor: Any, waveform: np.ndarray) -> AudioInputs:
        from undersong.models.kimi.processing import FRAMES_PER_TOKEN, kimi_audio_inputs

        inputs, tokens = kimi_audio_inputs(waveform, extractor)
        frames = tuple(count * FRAMES_PER_TOKEN for count in tokens)
        return AudioInputs(inputs, frames, max(frames, default=0))

    return prepare


def _frame_count(output: Any) -> int:
    return int(output["input_features"].shape[-1])
