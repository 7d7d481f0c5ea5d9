"""Whisper-class encoders from a folder: hear words and voice both (the "mixed" axis).

The encoder attends to its whole window, padding included, as it was trained to; the mean is over valid frames only.
Windows go through one by one: a clip's vector is the same bits whatever else is in the call, and on a full window the
matrix products are large already.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.clips import ClipEncoder
from undersong.models.pooling import mean_over
from undersong.types import Clip, Pooled, UndersongError

if TYPE_CHECKING:
    from transformers import WhisperConfig, WhisperFeatureExtractor
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

# Where a checkpoint keeps the encoder: saved alone, in a WhisperModel, in a WhisperForConditionalGeneration.
PREFIXES = ("", "encoder.", "model.encoder.")


def whisper_encoder(folder: str | Path, name: str | None = None, *, device: str = "cpu") -> ClipEncoder:
    """The Whisper encoder in `folder` (config, preprocessor config, safetensors), float32, in inference mode.

    Vectors: mean of the last hidden state (d_model) over valid frames at 50 Hz (half the mel frames, rounded up).  A
    clip longer than the window is heard in windows and pooled over all its frames.  Raises UndersongError when the
    folder holds no complete Whisper encoder or its preprocessor does not fit.
    """
    folder = Path(folder)
    model, extractor = _model(folder), _extractor(folder)
    _check_fit(folder, model.config, extractor)
    model.eval().to(device)

    def embed(clips: Sequence[Clip]) -> list[Pooled]:
        return [mean_over(_hear(model, extractor, clip)) for clip in clips]

    return ClipEncoder(name or f"whisper:{folder.name}", embed, extractor.sampling_rate)


def _hear(model: WhisperEncoder, extractor: WhisperFeatureExtractor, clip: Clip) -> np.ndarray:
    """Clip -> valid encoder frames (frames, d_model) float32 of all its windows."""
    import torch

    # As Whisper itself does for long audio, the spectrum is taken of the whole clip, then cut into windows.
    features = extractor(
        clip.samples,
        sampling_rate=clip.rate,
        padding="longest",
        truncation=False,
        pad_to_multiple_of=extractor.n_samples,
        return_tensors="pt",
    )["input_features"]
    heard, window = [], extractor.nb_max_frames
    mel_frames = -(-len(clip.samples) // extractor.hop_length)
    with torch.inference_mode():
        for start in range(0, mel_frames, window):
            valid = -(-min(window, mel_frames - start) // 2)  # the second convolution has stride 2
            mel = features[:, :, start : start + window].to(model.device)
            heard.append(model(mel).last_hidden_state[0, :valid].float().cpu().numpy())
    return np.concatenate(heard)


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
