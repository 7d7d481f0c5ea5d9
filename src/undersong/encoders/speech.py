"""Speech encoders of transformers: the class for each model_type (wav2vec 2.0 family, Whisper, CLAP, x-vectors) and its
loading.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.encoders.checkpoint import checkpoint_folder, load_extractor, load_network, read_config
from undersong.encoders.clip_encoder import ClipEncoder
from undersong.encoders.layers import LayerSelection, parse_layers
from undersong.encoders.spec import EncoderSpec, parse_encoder
from undersong.encoders.windowing import WindowedEncoder, WindowNetwork
from undersong.types import UndersongError

CLIPS_PER_CALL = 32  # clips per call; SECONDS_PER_PASS decides how many share a forward pass
SECONDS_PER_PASS = 120.0


@dataclass(frozen=True, slots=True)
class SpeechModelClass:
    """Classes and kind of forward pass for a model_type."""

    network: str  # transformers' class
    extractor: str = "Wav2Vec2FeatureExtractor"
    architecture: str = "frames"  # frames | xvector | clap | whisper
    masks_padding: bool = True  # with a mask, padding does not affect any frame


# Other ids work once their model_type has a line here.
SPEECH_MODEL_CLASSES = {
    "wav2vec2": SpeechModelClass("Wav2Vec2Model"),
    "hubert": SpeechModelClass("HubertModel"),
    "wavlm": SpeechModelClass("WavLMModel"),
    "unispeech": SpeechModelClass("UniSpeechModel"),
    "unispeech-sat": SpeechModelClass("UniSpeechSatModel"),
    # Their convolutions run over the hidden states of the padding, whatever the mask says.
    "data2vec-audio": SpeechModelClass("Data2VecAudioModel", masks_padding=False),
    "wav2vec2-conformer": SpeechModelClass("Wav2Vec2ConformerModel", masks_padding=False),
    "whisper": SpeechModelClass("WhisperModel", "WhisperFeatureExtractor", architecture="whisper"),
    "clap": SpeechModelClass("ClapAudioModelWithProjection", "ClapFeatureExtractor", architecture="clap"),
    "clap_audio_model": SpeechModelClass("ClapAudioModelWithProjection", "ClapFeatureExtractor", architecture="clap"),
}
XVECTOR_SUFFIX = "ForXVector"


def speech_encoder(
    ref: str | Path,
    *,
    layer: int | str | None = None,
    pool: str = "mean",
    pad: str = "exact",
    device: str = "cpu",
    dtype: str = "float32",
    batch: int = CLIPS_PER_CALL,
    seconds: float = SECONDS_PER_PASS,
) -> ClipEncoder:
    """Load the speech encoder of a folder, a packaged organism or a Hugging Face id. The class follows from its config.

    `batch` and `seconds` change a vector by no more than rounding (1e-5 in float32).

    Args:
        ref: Folder, `organism:NAME` or Hugging Face id.
        layer: None or "last", a number, or a mix (layers.py). Not for models with one vector per clip (CLAP,
            x-vectors).
        pool: Pooling over valid frames: "mean" (dim,), "mean+std" (2 dim,) or "last". Not for models with one vector.
        pad: "exact", the length that the encoder was trained on, or "bucket", which skips the padding (Whisper only).
        device: Torch device.
        dtype: Dtype of the weights.
        batch: Clips per call.
        seconds: Seconds of sound in one forward pass.

    Raises:
        UndersongError: A model_type without a class, incomplete weights, another model's preprocessor, an option that
            the model cannot use, or a missing device.
    """
    from undersong.models.load import check_device

    spec = _speech_spec(
        ref, {"layer": "last" if layer is None else str(layer), "pool": pool, "pad": pad, "dtype": dtype}
    )
    check_device(device)
    layers = parse_layers(spec.option("layer"))
    folder = checkpoint_folder(ref)
    network = _load_speech_network(folder, str(ref), layers, spec, device)
    display_spec = EncoderSpec(spec.kind, folder.name if Path(ref).is_dir() else str(ref), spec.options)
    return ClipEncoder(
        display_spec.canonical, WindowedEncoder(network, spec.option("pool"), seconds), network.rate, batch
    )


def _speech_spec(ref: str | Path, options: dict[str, str]) -> EncoderSpec:
    """Check the options and give them their canonical spelling; the reference may be any text."""
    parsed = parse_encoder(",".join(["speech:x", *(f"{name}={value}" for name, value in options.items())]))
    return EncoderSpec("speech", str(ref), parsed.options)


def _load_speech_network(
    folder: Path, ref: str, layers: LayerSelection, spec: EncoderSpec, device: str
) -> WindowNetwork:
    config = read_config(folder)
    model_class = speech_model_class(config, ref)
    _check_options(model_class.architecture, ref, layers, spec)
    if model_class.architecture == "whisper":
        from undersong.encoders.whisper import whisper_network

        return whisper_network(folder, layers, spec.option("pad"), device=device, dtype=spec.option("dtype"))
    extractor = load_extractor(folder, model_class.extractor)
    model = load_network(folder, model_class.network, spec.option("dtype")).to(device)
    if model_class.architecture == "clap":
        from undersong.encoders.speech_networks import clap_network

        return clap_network(model, extractor)
    from undersong.encoders.speech_networks import frame_network, xvector_network

    if model_class.architecture == "xvector":
        return xvector_network(model, extractor)
    return frame_network(model, extractor, layers, ref, masks_padding=model_class.masks_padding)


def has_padding(ref: str) -> bool:
    """True if a speech encoder was trained on one length, so that there is padding to skip."""
    return speech_model_class(read_config(checkpoint_folder(ref)), ref).architecture == "whisper"


def speech_model_class(config: dict[str, Any], ref: str) -> SpeechModelClass:
    """Class for a config, by model_type and, for x-vector heads, architecture. Raises UndersongError for an unknown
    type.
    """
    model_type = config["model_type"]
    xvector_heads = [str(name) for name in config.get("architectures") or () if str(name).endswith(XVECTOR_SUFFIX)]
    if model_type in SPEECH_MODEL_CLASSES and SPEECH_MODEL_CLASSES[model_type].architecture == "frames":
        if config.get("add_adapter"):
            raise UndersongError(
                f"{ref} has an adapter behind its layers, which is not supported; take its base model."
            )
        return (
            SpeechModelClass(xvector_heads[0], architecture="xvector")
            if xvector_heads
            else SPEECH_MODEL_CLASSES[model_type]
        )
    if model_type not in SPEECH_MODEL_CLASSES:
        raise UndersongError(
            f"{ref} is of type {model_type}, which no speech encoder is known for; take one of "
            f"{', '.join(SPEECH_MODEL_CLASSES)}."
        )
    return SPEECH_MODEL_CLASSES[model_type]


def _check_options(architecture: str, ref: str, layers: LayerSelection, spec: EncoderSpec) -> None:
    """Raise UndersongError for options that would be another name for the same numbers."""
    if spec.option("pad") != "exact" and architecture != "whisper":
        raise UndersongError(
            f"{ref} pads nothing that could be skipped, so pad={spec.option('pad')} says nothing; leave it out."
        )
    if architecture in ("clap", "xvector") and (not layers.is_output or spec.option("pool") != "mean"):
        raise UndersongError(
            f"{ref} gives a clip one vector, without layers or frames to pool; leave layer and pool out."
        )
