"""Whisper encoders, with exact padding to 30 s or bucketed padding (padding_check.py compares them)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.clip_encoder import ClipEncoder
from undersong.encoders.layers import OUTPUT_LAYER, LayerSelection
from undersong.encoders.windowing import AudioWindow, WindowedEncoder, WindowNetwork
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

# Prefix of the encoder in a checkpoint: saved alone, in a WhisperModel, in a WhisperForConditionalGeneration.
ENCODER_PREFIXES = ("", "encoder.", "model.encoder.")
BUCKET_STEP = 10  # encoder frames (a fifth of a second) between the lengths of `bucket`


def whisper_encoder(folder: str | Path, name: str | None = None, *, device: str = "cpu") -> ClipEncoder:
    """Load the Whisper encoder in `folder` (config, preprocessor config, safetensors), float32, in inference mode.

    Its vectors are the mean of the last hidden state (d_model) over valid frames at 50 Hz (half the mel frames, rounded
    up). A clip longer than the window is cut into windows and pooled over all its frames. Windows are encoded one by
    one, so a clip's vector is bitwise the same in any call. Raises UndersongError if the folder holds no complete
    Whisper encoder, or its preprocessor does not fit.
    """
    network = whisper_network(Path(folder), device=device)
    return ClipEncoder(
        name or f"whisper:{Path(folder).name}", WindowedEncoder(network, "mean", seconds=0.0), network.rate
    )


def whisper_network(
    folder: Path,
    layers: LayerSelection = OUTPUT_LAYER,
    pad: str = "exact",
    *,
    device: str = "cpu",
    dtype: str = "float32",
) -> WindowNetwork:
    """Load the encoder in `folder`, with the functions that cut clips and encode windows.

    Args:
        folder: Folder of the model.
        layers: Layers to take.
        pad: "exact" (30 s) or "bucket".
        device: Torch device.
        dtype: Dtype of the weights.

    Raises:
        UndersongError: As in `whisper_encoder`, or a layer that the network does not have.
    """
    import torch

    model, extractor = _load_encoder_network(folder), _load_extractor(folder)
    _check_extractor(folder, model.config, extractor)
    required = layers.required_layers(len(model.layers), str(folder))
    model.eval().to(device, getattr(torch, dtype))
    cut_windows = partial(_cut_windows, extractor, step=BUCKET_STEP if pad == "bucket" else None)
    encode_windows = partial(_encode_windows, model, layers, required)
    return WindowNetwork(extractor.sampling_rate, cut_windows, encode_windows, module=model, name=str(folder))


def _cut_windows(extractor: WhisperFeatureExtractor, samples: np.ndarray, *, step: int | None) -> list[AudioWindow]:
    """Mel features of a clip, (bins, mel frames) per window; lengths are rounded up to `step` encoder frames.

    As Whisper does for long audio, the spectrum is taken of the whole clip and then cut into windows.
    """
    hop, window = extractor.hop_length, extractor.nb_max_frames
    mel_frames = -(-len(samples) // hop)
    starts = range(0, mel_frames, window)
    valid = [-(-min(window, mel_frames - start) // 2) for start in starts]  # the second convolution has stride 2
    widths = [min(window, 2 * step * -(-frames // step)) if step else window for frames in valid]
    # Two more frames than are used: the extractor reflects the end of its input, which must be silence.
    total_frames = (len(widths) - 1) * window + widths[-1]
    padded_samples = (
        len(widths) * extractor.n_samples if total_frames == len(widths) * window else (total_frames + 2) * hop
    )
    features = extractor(
        np.pad(samples, (0, max(0, padded_samples - len(samples)))),
        sampling_rate=extractor.sampling_rate,
        padding="do_not_pad",
        truncation=False,
        return_tensors="pt",
    )["input_features"][0]
    seconds = hop / extractor.sampling_rate
    return [
        AudioWindow(features[:, start : start + width], frames, width * seconds)
        for start, width, frames in zip(starts, widths, valid)
    ]


def _encode_windows(
    model: WhisperEncoder, layers: LayerSelection, required: int, windows: Sequence[AudioWindow]
) -> list[np.ndarray]:
    """One forward pass over windows of one shape: valid frames (frames, d_model) float32 of each."""
    import torch

    with torch.inference_mode():
        mel = torch.stack([window.values for window in windows]).to(model.device, model.dtype)
        hidden = _forward(model, mel, layers, required).float().cpu().numpy()
    return [rows[: window.frames] for rows, window in zip(hidden, windows)]


def _forward(model: WhisperEncoder, mel: torch.Tensor, layers: LayerSelection, required: int) -> torch.Tensor:
    """(batch, bins, mel frames) -> (batch, frames, d_model), like `WhisperEncoder.forward` in inference.

    Unlike it, this takes any length up to the window, and runs only the first `required` layers.
    """
    from torch.nn.functional import gelu

    hidden = gelu(model.conv2(gelu(model.conv1(mel)))).transpose(1, 2)
    hidden = hidden + model.embed_positions.weight[: hidden.shape[1]]
    states = [hidden]
    for layer in model.layers[:required]:
        hidden = layer(hidden, None)
        if not layers.is_output:
            states.append(hidden)
    if required < len(model.layers):
        return layers.combine([*states, hidden], hidden)
    return layers.combine(states, model.layer_norm(hidden))


def _load_encoder_network(folder: Path) -> WhisperEncoder:
    """Load the encoder without the decoder, strictly: a missing weight is an error, never a random number."""
    from transformers import WhisperConfig
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    from undersong.models.pretrained import load_pretrained

    if not (folder / "config.json").is_file():
        raise UndersongError(f"No Whisper encoder in {folder}: config.json is missing; give a saved model's folder.")
    model_type = WhisperConfig.get_config_dict(folder)[0].get("model_type")
    if model_type != "whisper":
        raise UndersongError(
            f"The model in {folder} is of type {model_type}, not whisper; give a Whisper model's folder."
        )
    config = load_pretrained(WhisperConfig.from_pretrained, folder, str(folder), local_files_only=True)
    model = WhisperEncoder(config)
    weights = _encoder_weights(folder)
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    actual = {key: tuple(value.shape) for key, value in weights.items()}
    if mismatched := sorted(key for key in expected.keys() | actual.keys() if expected.get(key) != actual.get(key)):
        raise UndersongError(
            f"The weights in {folder} do not fit its config: {mismatched[0]} and {len(mismatched) - 1} more are "
            "missing, left over or of another shape; give a complete Whisper checkpoint."
        )
    model.load_state_dict(weights, strict=True)
    return model.float()


def _encoder_weights(folder: Path) -> dict:
    """Tensors of the encoder by their name inside it, from all safetensors files of the folder (shards included)."""
    from safetensors import safe_open

    names: dict[str, Path] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights_file:
            names.update(dict.fromkeys(weights_file.keys(), file))
    prefix = next((prefix for prefix in ENCODER_PREFIXES if f"{prefix}conv1.weight" in names), None)
    if prefix is None:
        raise UndersongError(
            f"No weights of a Whisper encoder in {folder} (*.safetensors); convert them to safetensors."
        )
    weights = {}
    for file in sorted(set(names.values())):
        with safe_open(file, framework="pt") as weights_file:
            encoder_names = [name for name in weights_file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a mapping
            weights.update({name.removeprefix(prefix): weights_file.get_tensor(name) for name in encoder_names})
    return weights


def _load_extractor(folder: Path) -> WhisperFeatureExtractor:
    from transformers import WhisperFeatureExtractor

    from undersong.models.pretrained import load_pretrained

    if not any((folder / name).is_file() for name in ("preprocessor_config.json", "processor_config.json")):
        raise UndersongError(f"No preprocessor_config.json in {folder}; copy it from the model's release.")
    extractor: WhisperFeatureExtractor = load_pretrained(
        WhisperFeatureExtractor.from_pretrained, folder, str(folder), local_files_only=True
    )
    return extractor


def _check_extractor(folder: Path, config: WhisperConfig, extractor: WhisperFeatureExtractor) -> None:
    expected = (config.num_mel_bins, 2 * config.max_source_positions)
    actual = (extractor.feature_size, extractor.nb_max_frames)
    if expected != actual:
        raise UndersongError(
            f"The preprocessor in {folder} makes {actual[0]} mel bins x {actual[1]} frames where the model takes "
            f"{expected[0]} x {expected[1]}; use the preprocessor config that belongs to the model."
        )
