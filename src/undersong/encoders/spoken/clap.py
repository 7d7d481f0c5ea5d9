"""The audio tower of CLAP: one vector for a window of (usually) 10 s, near that of a text which describes the sound.

Two things of the published extractor are left out because a vector would not be the same twice: it crops long clips at
random places, and it declares one clip of every batch, drawn at random, longer than it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from undersong.encoders.windowing import AudioWindow, WindowNetwork, evenly_spaced_windows


def clap_network(model: Any, extractor: Any) -> WindowNetwork:
    """The projected unit vector, as `ClapModel.get_audio_features`; a short clip is repeated to fill the window, as the
    extractor does, and of a longer one the mean over windows that cover it is taken."""
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

    return WindowNetwork(rate, cut_windows, encode_windows)


def _clap_window(extractor: Any, samples: np.ndarray, seconds: float) -> AudioWindow:
    with _preserve_numpy_state():
        output = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return AudioWindow(output["input_features"][0].float(), 1, seconds)


@contextmanager
def _preserve_numpy_state() -> Iterator[None]:
    """The extractor draws from numpy's global state, for a value that is not used here."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
