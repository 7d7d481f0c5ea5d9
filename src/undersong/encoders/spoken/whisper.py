"""Whisper-class encoders from a folder: hear words and voice both (the "mixed" axis).

Two ways to treat the padding, which give other numbers (`padding.py` compares them on one's own data):
- `exact`: every window is filled to 30 s with silence and the encoder attends to all of it, as it was trained to; the
  mean is over valid frames only.
- `bucket`: the clip is filled to the next fifth of a second, with the first positions of the window, so a clip of 4 s
  costs a tenth.  The features are the same; what the encoder cannot attend to is the silence behind.
Either way a window's shape follows from its own clip, so its vector does not depend on the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.spoken.clips import ClipEncoder
from undersong.encoders.spoken.layers import OUTPUT, Layers
from undersong.encoders.spoken.windows import Ear, Network, Window
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

# Where a checkpoint keeps the encoder: saved alone, in a WhisperModel, in a WhisperForConditionalGeneration.
PREFIXES = ("", "encoder.", "model.encoder.")
STEP = 10  # encoder frames (a fifth of a second) between the lengths of `bucket`


def whisper_encoder(folder: str | Path, name: str | None = None, *, device: str = "cpu") -> ClipEncoder:
    """The Whisper encoder in `folder` (config, preprocessor config, safetensors), float32, in inference mode.

    Vectors: mean of the last hidden state (d_model) over valid frames at 50 Hz (half the mel frames, rounded up).  A
    clip longer than the window is heard in windows and pooled over all its frames; windows go through one by one, so a
    clip's vector is the same bits whatever else is in the call.  Raises UndersongError when the folder holds no
    complete Whisper encoder or its preprocessor does not fit.
    """
    network = whisper_network(Path(folder), device=device)
    return ClipEncoder(name or f"whisper:{Path(folder).name}", Ear(network, "mean", seconds=0.0), network.rate)


def whisper_network(
    folder: Path, layers: Layers = OUTPUT, pad: str = "exact", *, device: str = "cpu", dtype: str = "float32"
) -> Network:
    """The encoder in `folder`, and how clips are cut and heard.  Raises as `whisper_encoder`, and for a layer that it
    has not."""
    import torch

    model, extractor = _model(folder), _extractor(folder)
    _check_fit(folder, model.config, extractor)
    top = layers.highest(len(model.layers), str(folder))
    model.eval().to(device, getattr(torch, dtype))
    cut = partial(_windows, extractor, step=STEP if pad == "bucket" else None)
    return Network(extractor.sampling_rate, cut, partial(_hear, model, layers, top))


def _windows(extractor: WhisperFeatureExtractor, samples: np.ndarray, *, step: int | None) -> list[Window]:
    """Mel features of a clip, (bins, mel frames) a window; `step`: encoder frames that lengths are rounded up to.

    As Whisper itself does for long audio, the spectrum is taken of the whole clip, then cut into windows.
    """
    hop, window = extractor.hop_length, extractor.nb_max_frames
    mel_frames = -(-len(samples) // hop)
    starts = range(0, mel_frames, window)
    valid = [-(-min(window, mel_frames - start) // 2) for start in starts]  # the second convolution has stride 2
    widths = [min(window, 2 * step * -(-frames // step)) if step else window for frames in valid]
    # Two frames more than are taken: the extractor reflects the end of what it is given, and must find silence there.
    whole = (len(widths) - 1) * window + widths[-1]
    padded = len(widths) * extractor.n_samples if whole == len(widths) * window else (whole + 2) * hop
    features = extractor(
        np.pad(samples, (0, max(0, padded - len(samples)))),
        sampling_rate=extractor.sampling_rate,
        padding="do_not_pad",
        truncation=False,
        return_tensors="pt",
    )["input_features"][0]
    seconds = hop / extractor.sampling_rate
    return [
        Window(features[:, start : start + width], frames, width * seconds)
        for start, width, frames in zip(starts, widths, valid)
    ]


def _hear(model: WhisperEncoder, layers: Layers, top: int, windows: Sequence[Window]) -> list[np.ndarray]:
    """One pass over windows of one shape -> valid frames (frames, d_model) float32 of each."""
    import torch

    with torch.inference_mode():
        mel = torch.stack([window.values for window in windows]).to(model.device, model.dtype)
        hidden = _forward(model, mel, layers, top).float().cpu().numpy()
    return [rows[: window.frames] for rows, window in zip(hidden, windows)]


def _forward(model: WhisperEncoder, mel: torch.Tensor, layers: Layers, top: int) -> torch.Tensor:
    """(batch, bins, mel frames) -> (batch, frames, d_model): what `WhisperEncoder.forward` does in inference, for any
    length up to the window (it takes the whole window only), and no further than layer `top`."""
    from torch.nn.functional import gelu

    hidden = gelu(model.conv2(gelu(model.conv1(mel)))).transpose(1, 2)
    hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
    states = [hidden]
    for layer in model.layers[:top]:
        hidden = layer(hidden, None)
        if not layers.plain:
            states.append(hidden)
    if top < len(model.layers):
        return layers.of([*states, hidden], hidden)
    return layers.of(states, model.layer_norm(hidden))


def _model(folder: Path) -> WhisperEncoder:
    """The encoder alone, strictly loaded: a missing weight is an error, never a random number; no decoder in memory."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    if not (folder / "config.json").is_file():
        raise UndersongError(f"No Whisper encoder in {folder}: config.json is missing; give a saved model's folder.")
    kind = WhisperConfig.get_config_dict(folder)[0].get("model_type")
    if kind != "whisper":
        raise UndersongError(f"The model in {folder} is of type {kind}, not whisper; give a Whisper model's folder.")
    config = WhisperConfig.from_pretrained(folder, local_files_only=True)
    model = WhisperEncoder(config)
    weights = _encoder_weights(folder)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    found = {key: tuple(value.shape) for key, value in weights.items()}
    if wrong := sorted(key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)):
        raise UndersongError(
            f"The weights in {folder} do not fit its config: {wrong[0]} and {len(wrong) - 1} more are missing, left "
            "over or of another shape; give a complete Whisper checkpoint."
        )
    model.load_state_dict(weights, strict=True)
    return model.float()


def _encoder_weights(folder: Path) -> dict:
    """Tensors of the encoder by their name inside it, from every safetensors file of the folder (shards included)."""
    from safetensors import safe_open

    names: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            names.update(dict.fromkeys(tensors.keys(), file))
    prefix = next((prefix for prefix in PREFIXES if f"{prefix}conv1.weight" in names), None)
    if prefix is None:
        raise UndersongError(
            f"No weights of a Whisper encoder in {folder} (*.safetensors); convert them to safetensors."
        )
    weights = {}
    for file in sorted(set(names.values())):
        with safe_open(file, framework="pt") as tensors:
            wanted = [name for name in tensors.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
            weights.update({name.removeprefix(prefix): tensors.get_tensor(name) for name in wanted})
    return weights


def _extractor(folder: Path) -> WhisperFeatureExtractor:
    from transformers import WhisperFeatureExtractor

    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise UndersongError(f"No preprocessor_config.json in {folder}; copy it from the model's release.")
    return WhisperFeatureExtractor.from_pretrained(folder, local_files_only=True)


def _check_fit(folder: Path, config: WhisperConfig, extractor: WhisperFeatureExtractor) -> None:
    wants = (config.num_mel_bins, 2 * config.max_source_positions)
    gives = (extractor.feature_size, extractor.nb_max_frames)
    if wants != gives:
        raise UndersongError(
            f"The preprocessor in {folder} makes {gives[0]} mel bins x {gives[1]} frames where the model takes "
            f"{wants[0]} x {wants[1]}; use the preprocessor config that belongs to the model."
        )
