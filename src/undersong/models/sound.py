"""From a clip to the tensors a family's forward pass takes, one way of cutting and padding each.

Every way is the family's own processor on a single clip, bit for bit, made from the feature extractor alone: processors
want packages for images and video, or pad a 2-second clip to 300 s.  One clip at a time, so nothing depends on a batch.
Knows feature extractors; does not know models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Sound:
    """One clip as a model takes it: `inputs` of its forward pass, the valid feature frames of every window, and how
    many frames a window has with its padding."""

    inputs: dict[str, torch.Tensor]
    frames: tuple[int, ...]
    width: int


NOTHING = Sound({}, (0,), 0)  # of a clip that an extractor cannot take

# (feature extractor, samples (n,) float32 at its rate) -> Sound
Preparation = Callable[[Any, np.ndarray], Sound]


def padded_windows(mask: str) -> Preparation:
    """Windows of the extractor's `chunk_length`, each padded to its end, with a mask (windows, frames) named `mask`.

    Audio Flamingo 3 and MusicFlamingo (windows of 30 s), Qwen2-Audio (one such window).  Two frames (20 ms) over the
    end of a window make no placeholder; they are left out, because MusicFlamingo's clock fails on them.
    """

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        size = extractor.chunk_length * extractor.sampling_rate
        starts = range(0, max(1, len(wave) - 2 * extractor.hop_length), size)
        out = extractor(
            [wave[start : start + size] for start in starts],
            sampling_rate=extractor.sampling_rate,
            padding="max_length",
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = tuple(out["attention_mask"].sum(1).tolist())
        return Sound({"input_features": out["input_features"], mask: out["attention_mask"]}, frames, _width(out))

    return prepare


def padded_then_cut(mask: str) -> Preparation:
    """One row as long as the clip, made as if padded to the extractor's longest, with a mask (1, frames).

    Qwen2.5-Omni: its processor pads every clip to 300 s (15 MB), of which the model reads the valid frames alone.
    A frame reaches 200 samples to each side, so 400 zeros behind the clip give every valid frame what 300 s would; a
    second in all, because shorter matrix products round otherwise.
    """

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        import torch

        hop = extractor.hop_length
        frames = -(-len(wave) // hop)
        whole = min(max((frames + 3) * hop, extractor.sampling_rate), extractor.n_samples)
        out = extractor(
            np.pad(wave, (0, whole - len(wave))),
            sampling_rate=extractor.sampling_rate,
            padding="do_not_pad",
            truncation=False,
            return_tensors="pt",
        )
        features = out["input_features"][..., :frames]
        return Sound({"input_features": features, mask: torch.ones(1, frames, dtype=torch.long)}, (frames,), frames)

    return prepare


def unpadded(mask: str) -> Preparation:
    """One row as long as the clip, without padding, with a mask (1, frames).  Qwen3-Omni."""

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        if len(wave) <= extractor.n_fft // 2:  # too short for the extractor to reflect its end
            return NOTHING
        out = extractor(
            wave,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            return_attention_mask=True,
            return_tensors="pt",
        )
        frames = tuple(out["attention_mask"].sum(1).tolist())
        return Sound({"input_features": out["input_features"], mask: out["attention_mask"]}, frames, _width(out))

    return prepare


def cut_after_padding() -> Preparation:
    """The whole clip padded to a multiple of the window, its features then cut; no mask.  Voxtral.

    Not the same as features of windows: their scale is set by the loudest frame of the whole clip.
    """

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        size = extractor.chunk_length * extractor.sampling_rate
        out = extractor(
            wave,
            sampling_rate=extractor.sampling_rate,
            padding=True,
            truncation=False,
            pad_to_multiple_of=size,
            return_tensors="pt",
        )
        width = size // extractor.hop_length
        features = out["input_features"].reshape(extractor.feature_size, -1, width).transpose(0, 1)
        frames = -(-len(wave) // extractor.hop_length)
        valid = tuple(min(width, frames - i * width) for i in range(len(features)))
        return Sound({"input_features": features}, valid, width)

    return prepare


def by_extractor() -> Preparation:
    """The extractor's own tensors of a single clip.  Phi-4-multimodal, whose frames are those that fit whole."""

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        if len(wave) < extractor.win_length:  # the extractor would make a negative number of frames
            return NOTHING
        out = extractor(wave, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        frames = out["audio_input_features"].shape[1]
        return Sound(dict(out), (frames,), frames)

    return prepare


def kimi_codes_and_features() -> Preparation:
    """Whisper features and those of the semantic tokenizer, window by window.  Kimi-Audio."""

    def prepare(extractor: Any, wave: np.ndarray) -> Sound:
        from undersong.models.kimi.sound import FRAMES_A_TOKEN, kimi_sound

        inputs, tokens = kimi_sound(wave, extractor)
        frames = tuple(count * FRAMES_A_TOKEN for count in tokens)
        return Sound(inputs, frames, max(frames, default=0))

    return prepare


def _width(out: Any) -> int:
    return int(out["input_features"].shape[-1])
