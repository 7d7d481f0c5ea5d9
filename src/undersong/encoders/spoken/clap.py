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

from undersong.encoders.spoken.windows import Network, Window, spread


def clap_network(model: Any, extractor: Any) -> Network:
    """The projected unit vector, as `ClapModel.get_audio_features`; a short clip is repeated to fill the window, as the
    extractor does, and of a longer one the mean over windows that cover it is taken."""
    rate = extractor.sampling_rate
    size = int(extractor.nb_max_samples)

    def cut(samples: np.ndarray) -> list[Window]:
        return [_window(extractor, samples[a:b], size / rate) for a, b in spread(len(samples), size)]

    def hear(windows: Sequence[Window]) -> list[np.ndarray]:
        features = torch.stack([window.values for window in windows]).to(model.device, model.dtype)
        longer = torch.zeros(len(windows), 1, dtype=torch.bool, device=model.device)
        with torch.inference_mode():
            vectors = model(input_features=features, is_longer=longer).audio_embeds
            vectors = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
        return list(vectors[:, None])

    return Network(rate, cut, hear)


def _window(extractor: Any, samples: np.ndarray, seconds: float) -> Window:
    with _numpy_unmoved():
        out = extractor(samples, sampling_rate=extractor.sampling_rate, return_tensors="pt")
    return Window(out["input_features"][0].float(), 1, seconds)


@contextmanager
def _numpy_unmoved() -> Iterator[None]:
    """The extractor draws from numpy's global state, for a value that is not used here."""
    state = np.random.get_state()
    try:
        yield
    finally:
        np.random.set_state(state)
