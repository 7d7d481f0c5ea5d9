"""Networks that read the waveform: the wav2vec 2.0 class, and x-vector heads on it.  Knows transformers' classes.

Two ways to put clips of several lengths into one pass, and a checkpoint allows one of them:
- `feat_extract_norm: layer` (the large ones): trained with attention masks.  Padding is masked, valid frames are kept.
- `feat_extract_norm: group` (wav2vec2-base, hubert-base, wavlm-base): the first layer is normalised over the whole
  length, so zeros behind a clip would change every one of its frames, with a mask or without.  Such clips go through
  with others of exactly their length, or alone; nothing is ever padded.
X-vector heads go unpadded too: with a mask, transformers computes their valid frames without the layers' dilation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from undersong.encoders.layers import LayerSelection
from undersong.encoders.windowing import AudioWindow, WindowNetwork, consecutive_windows, evenly_spaced_windows

MAX_WINDOW_SECONDS = 30  # seconds: attention over hours does not fit any memory, and nothing was trained on more


def frame_network(
    model: Any, extractor: Any, layers: LayerSelection, model_name: str, *, masks_padding: bool = True
) -> WindowNetwork:
    """Frames of the chosen layers, at 50 Hz; a clip longer than 30 s is heard in windows, one after the other.

    `masks`: the class keeps padding out of every frame when it is given a mask.  Raises UndersongError for a layer that
    the network has not.
    """
    blocks = model.encoder.layers
    required = layers.required_layers(len(blocks), model_name)
    if not layers.is_output and required < len(blocks):
        # The blocks above are not needed.  One more stays, because the last one's state is told after the final norm.
        model.encoder.layers = blocks[: required + 1]
    mixed_lengths = masks_padding and getattr(model.config, "feat_extract_norm", "layer") == "layer"

    def encode_windows(windows: Sequence[AudioWindow]) -> list[np.ndarray]:
        lengths = [len(window.values) for window in windows]
        values = torch.nn.utils.rnn.pad_sequence([window.values for window in windows], batch_first=True)
        mask = None
        if min(lengths) < max(lengths):
            mask = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long().to(model.device)
        with torch.inference_mode():
            output = model(
                values.to(model.device, model.dtype), attention_mask=mask, output_hidden_states=not layers.is_output
            )
            hidden = layers.combine(output.hidden_states or (), output.last_hidden_state).float().cpu().numpy()
        return [rows[: window.frames] for rows, window in zip(hidden, windows)]

    def output_frames(samples: int) -> int:
        return max(0, int(model._get_feat_extract_output_lengths(samples)))

    return WindowNetwork(
        extractor.sampling_rate,
        WindowCutter(extractor, output_frames, single_vector=False),
        encode_windows,
        mixed_lengths,
    )


def xvector_network(model: Any, extractor: Any) -> WindowNetwork:
    """The speaker embedding: one vector a window of at most 30 s, the mean over windows for a longer clip."""
    config = model.config
    context_frames = sum(dilation * (kernel - 1) for kernel, dilation in zip(config.tdnn_kernel, config.tdnn_dilation))

    def encode_windows(windows: Sequence[AudioWindow]) -> list[np.ndarray]:
        values = torch.stack([window.values for window in windows])
        with torch.inference_mode():
            vectors = model(values.to(model.device, model.dtype)).embeddings.float().cpu().numpy()
        return list(vectors[:, None])

    def output_frames(samples: int) -> int:
        # The head takes a deviation over its frames, for which it needs two.
        return 1 if int(model._get_feat_extract_output_lengths(samples)) - context_frames >= 2 else 0

    return WindowNetwork(
        extractor.sampling_rate, WindowCutter(extractor, output_frames, single_vector=True), encode_windows
    )


@dataclass(frozen=True, slots=True)
class WindowCutter:
    """Samples (n,) -> windows, prepared by the extractor (its normalisation is of the whole clip, as in training)."""

    extractor: Any
    output_frames: Any  # samples -> valid frames of the network's output
    single_vector: bool  # one vector a window

    def __call__(self, samples: np.ndarray) -> list[AudioWindow]:
        """Stretches of at most `WINDOW` seconds, of a clip at the rate of the extractor, in its order."""
        rate = self.extractor.sampling_rate
        waveform = self.extractor(samples, sampling_rate=rate, return_tensors="np")["input_values"][0]
        values = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        stretches = (evenly_spaced_windows if self.single_vector else consecutive_windows)(
            len(values), MAX_WINDOW_SECONDS * rate
        )
        return [
            AudioWindow(values[start:stop], self.output_frames(stop - start), (stop - start) / rate)
            for start, stop in stretches
        ]
