"""Forward passes of speech encoders: wav2vec 2.0 class networks, x-vector heads, CLAP.

Imports torch; speech.py imports it only when a network is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from undersong.encoders.layers import LayerSelection
from undersong.encoders.windowing import AudioWindow, WindowNetwork, consecutive_windows, evenly_spaced_windows

MAX_WINDOW_SECONDS = 30  # attention over hours does not fit in memory, and no network was trained on more


def frame_network(
    model: Any, extractor: Any, layers: LayerSelection, model_name: str, *, masks_padding: bool = True
) -> WindowNetwork:
    """Network whose output is the frames of the selected layers, at 50 Hz. Clips over 30 s are cut into windows.

    Args:
        model: The loaded network.
        extractor: Its feature extractor.
        layers: The selected layers.
        model_name: Name of the model in errors.
        masks_padding: With a mask, padding does not affect any frame.

    Raises:
        UndersongError: A layer that the network does not have.
    """
    blocks = model.encoder.layers
    required = layers.required_layers(len(blocks), model_name)
    if not layers.is_output and required < len(blocks):
        # Higher blocks are not needed. One more stays, because the last state is taken after the final norm.
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
        return max(0, count_frames(model.config, samples))

    return WindowNetwork(
        extractor.sampling_rate,
        WindowCutter(extractor, output_frames, single_vector=False),
        encode_windows,
        mixed_lengths,
        model,
        name_of(model),
    )


def xvector_network(model: Any, extractor: Any) -> WindowNetwork:
    """Network of speaker embeddings: one vector per window of at most 30 s, averaged over the windows of a clip."""
    config = model.config
    context_frames = sum(dilation * (kernel - 1) for kernel, dilation in zip(config.tdnn_kernel, config.tdnn_dilation))

    def encode_windows(windows: Sequence[AudioWindow]) -> list[np.ndarray]:
        values = torch.stack([window.values for window in windows])
        with torch.inference_mode():
            vectors = model(values.to(model.device, model.dtype)).embeddings.float().cpu().numpy()
        return list(vectors[:, None])

    def output_frames(samples: int) -> int:
        # The head takes a standard deviation over its frames, which needs two.
        return 1 if count_frames(model.config, samples) - context_frames >= 2 else 0

    return WindowNetwork(
        extractor.sampling_rate,
        WindowCutter(extractor, output_frames, single_vector=True),
        encode_windows,
        module=model,
        name=name_of(model),
    )


def count_frames(config: Any, samples: int) -> int:
    """Number of frames that wav2vec 2.0's convolutions make of this many samples, or a number below 1 for too few.

    Its config says their widths and strides; the formula is that of torch's `Conv1d` without padding.
    """
    steps = [*zip(config.conv_kernel, config.conv_stride)]
    if getattr(config, "add_adapter", False):
        steps += [(1, config.adapter_stride)] * config.num_adapter_layers
    frames = samples
    for width, stride in steps:
        frames = (frames - width) // stride + 1
    return frames


def name_of(model: Any) -> str:
    """Name of a network in errors: the folder or id that it was loaded from, else its class."""
    return str(model.config.name_or_path or type(model).__name__)


@dataclass(frozen=True, slots=True)
class WindowCutter:
    """Cuts samples (n,) into windows. The extractor normalizes the whole clip, as in training."""

    extractor: Any
    output_frames: Any  # samples -> valid frames of the network's output
    single_vector: bool  # one vector a window

    def __call__(self, samples: np.ndarray) -> list[AudioWindow]:
        """Windows of at most MAX_WINDOW_SECONDS of a clip at the extractor's rate, in order."""
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


def clap_network(model: Any, extractor: Any) -> WindowNetwork:
    """Network of the projected unit vector, as in `ClapModel.get_audio_features`.

    A short clip is repeated to fill the window, as the extractor does. For a longer clip, the vectors of the windows
    that cover it are averaged.
    """
    rate = extractor.sampling_rate
    window_samples = int(extractor.nb_max_samples)

    def cut_windows(samples: np.ndarray) -> list[AudioWindow]:
        return [
            _clap_window(extractor, samples[start:stop], window_samples / rate)
            for start, stop in evenly_spaced_windows(len(samples), window_samples)
        ]

    def encode_windows(windows: Sequence[AudioWindow]) -> list[np.ndarray]:
        features = torch.stack([window.values for window in windows]).to(model.device, model.dtype)
        is_longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=model.device)
        with torch.inference_mode():
            vectors = model(input_features=features, is_longer=is_longer).audio_embeds
            vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return list(vectors[:, None])

    return WindowNetwork(rate, cut_windows, encode_windows, module=model, name=name_of(model))


def _clap_window(extractor: Any, samples: np.ndarray, seconds: float) -> AudioWindow:
    with _preserve_numpy_state():
        output = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return AudioWindow(output["input_features"][0].float(), 1, seconds)


@contextmanager
def _preserve_numpy_state() -> Iterator[None]:
    """Restore numpy's global state: the extractor draws from it, for a value that is not used here."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
