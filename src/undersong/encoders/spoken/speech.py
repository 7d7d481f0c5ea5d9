"""Speech encoders by transformers, one loader for all: WavLM, wav2vec2, HuBERT and their kin, Whisper, CLAP, x-vectors.

Knows which class a checkpoint is of; does not know clips, batches or distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.encoders.options import EncoderSpec, parse_encoder
from undersong.encoders.spoken.checkpoint import checkpoint_folder, load_extractor, load_network, read_config
from undersong.encoders.spoken.clips import ClipEncoder
from undersong.encoders.spoken.layers import Layers, parse_layers
from undersong.encoders.spoken.windows import Ear, Network
from undersong.types import UndersongError

BATCH = 32  # clips a call; how many go through the network together is a matter of seconds
SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Class:
    """How a model_type is loaded and heard."""

    network: str  # transformers' class
    extractor: str = "Wav2Vec2FeatureExtractor"
    way: str = "frames"  # frames | xvector | clap | whisper
    masks: bool = True  # with a mask, padding stays out of every frame


# Further ids work as soon as their model_type has a line here.
CLASSES = {
    "wav2vec2": Class("Wav2Vec2Model"),
    "hubert": Class("HubertModel"),
    "wavlm": Class("WavLMModel"),
    "unispeech": Class("UniSpeechModel"),
    "unispeech-sat": Class("UniSpeechSatModel"),
    # Their convolutions run over what earlier layers made of the padding, whatever the mask says.
    "data2vec-audio": Class("Data2VecAudioModel", masks=False),
    "wav2vec2-conformer": Class("Wav2Vec2ConformerModel", masks=False),
    "whisper": Class("WhisperModel", "WhisperFeatureExtractor", way="whisper"),
    "clap": Class("ClapAudioModelWithProjection", "ClapFeatureExtractor", way="clap"),
    "clap_audio_model": Class("ClapAudioModelWithProjection", "ClapFeatureExtractor", way="clap"),
}
XVECTOR = "ForXVector"


def speech_encoder(
    ref: str | Path,
    *,
    layer: int | str | None = None,
    pool: str = "mean",
    pad: str = "exact",
    device: str = "cpu",
    dtype: str = "float32",
    batch: int = BATCH,
    seconds: float = SECONDS,
) -> ClipEncoder:
    """The encoder behind a folder, a packaged organism or a Hugging Face id; the class follows from its config.

    `layer`: None or "last", a number, or a mix (`layers.py`).  `pool` over valid frames: "mean" (dim,), "mean+std"
    (2 dim,), "last".  `pad`: "exact", the length the encoder was made for; "bucket" skips the padding, where there is
    any (Whisper).  Models that give a clip one vector (CLAP, x-vectors) take none of the three.  `batch` clips a call,
    of which up to `seconds` of sound go through the network together; neither changes a vector by more than rounding
    (1e-5 in float32).

    Raises UndersongError for a model_type without a class, incomplete weights, another model's preprocessor, an option
    that the model has no use for, or a device that is not there.
    """
    from undersong.models.load import check_device

    spec = _spec(ref, {"layer": "last" if layer is None else str(layer), "pool": pool, "pad": pad, "dtype": dtype})
    check_device(device)
    layers = parse_layers(spec.option("layer"))
    folder = checkpoint_folder(ref)
    network = _network(folder, str(ref), layers, spec, device)
    shown = EncoderSpec(spec.kind, folder.name if Path(ref).is_dir() else str(ref), spec.options)
    return ClipEncoder(shown.canonical, Ear(network, spec.option("pool"), seconds), network.rate, batch)


def _spec(ref: str | Path, options: dict[str, str]) -> EncoderSpec:
    """The options checked and in their one spelling; the reference is not read, it may hold anything."""
    read = parse_encoder(",".join(["speech:x", *(f"{name}={value}" for name, value in options.items())]))
    return EncoderSpec("speech", str(ref), read.options)


def _network(folder: Path, ref: str, layers: Layers, spec: EncoderSpec, device: str) -> Network:
    config = read_config(folder)
    made = class_of(config, ref)
    _check_use(made.way, ref, layers, spec)
    if made.way == "whisper":
        from undersong.encoders.spoken.whisper import whisper_network

        return whisper_network(folder, layers, spec.option("pad"), device=device, dtype=spec.option("dtype"))
    extractor = load_extractor(folder, made.extractor)
    model = load_network(folder, made.network, spec.option("dtype")).to(device)
    if made.way == "clap":
        from undersong.encoders.spoken.clap import clap_network

        return clap_network(model, extractor)
    from undersong.encoders.spoken.waves import frame_network, xvector_network

    if made.way == "xvector":
        return xvector_network(model, extractor)
    return frame_network(model, extractor, layers, ref, masks=made.masks)


def has_padding(ref: str) -> bool:
    """Whether a speech encoder was made for one length, so that there is padding to skip."""
    return class_of(read_config(checkpoint_folder(ref)), ref).way == "whisper"


def class_of(config: dict[str, Any], ref: str) -> Class:
    """By model_type, and by architecture for x-vector heads.  Raises UndersongError for a type without a class."""
    kind = config["model_type"]
    heads = [str(name) for name in config.get("architectures") or () if str(name).endswith(XVECTOR)]
    if kind in CLASSES and CLASSES[kind].way == "frames":
        if config.get("add_adapter"):
            raise UndersongError(
                f"{ref} has an adapter behind its layers, which is not supported; take its base model."
            )
        return Class(heads[0], way="xvector") if heads else CLASSES[kind]
    if kind not in CLASSES:
        raise UndersongError(
            f"{ref} is of type {kind}, which no speech encoder is known for; take one of {', '.join(CLASSES)}."
        )
    return CLASSES[kind]


def _check_use(way: str, ref: str, layers: Layers, spec: EncoderSpec) -> None:
    """UndersongError for options that would be another name for the same numbers."""
    if spec.option("pad") != "exact" and way != "whisper":
        raise UndersongError(
            f"{ref} pads nothing that could be skipped, so pad={spec.option('pad')} says nothing; leave it out."
        )
    if way in ("clap", "xvector") and (not layers.plain or spec.option("pool") != "mean"):
        raise UndersongError(
            f"{ref} gives a clip one vector, without layers or frames to pool; leave layer and pool out."
        )
