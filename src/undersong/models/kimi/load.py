"""Kimi-Audio from and to a folder in the layout of its release, three networks in one.  Knows no prompts.

The language model lies at the top, the continuous ear in `whisper-large-v3/`.  The semantic ear is a release of its
own: it is taken from `glm-4-voice-tokenizer/` in the folder where that is, else by its own id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from undersong.models.kimi.codes import FRAMES_A_STATE, PREFIX, CodesConfig, CodesEncoder
from undersong.models.kimi.config import KimiAudioConfig
from undersong.models.kimi.network import EARS, KimiAudioForCausalLM
from undersong.types import UndersongError

TOWER, CODES = "whisper-large-v3", "glm-4-voice-tokenizer"
CODES_ID = "zai-org/glm-4-voice-tokenizer"
UNUSED_TOWER = re.compile(r"^(model\.decoder\.|decoder\.|proj_out\.)")  # the half of Whisper that writes
PLACE = ("revision", "cache_dir", "local_files_only", "token", "force_download")
SHARED = (*PLACE, "ignore_mismatched_sizes")  # options of from_pretrained that hold for the ears too
SAFE = {"use_safetensors": True, "trust_remote_code": False}
WHOLE = "give the folder of a complete Kimi-Audio release"
APART = f"it is no part of Kimi-Audio's release: fetch {CODES_ID}, or put it into {CODES}/ of the model's folder"
FAULTS = ("missing_keys", "unexpected_keys", "mismatched_keys")
UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError, StrictDataclassError)


def load_kimi(
    source: str | Path, dtype: str | torch.dtype = "bfloat16", speech: bool = False, **options: Any
) -> tuple[KimiAudioForCausalLM, dict[str, Any]]:
    """The whole model in eval mode, and transformers' loading info of all three parts, names prefixed.

    `dtype` is of the language model and the Whisper encoder; codes are always found in float32, where they were
    trained.  `options` are those of `from_pretrained`: revision, device_map, attn_implementation, quantization_config.
    The ears lie on the device of the embeddings and are not quantised.  `speech` keeps the layers that speak.
    Errors (UndersongError): a part that cannot be read, or whose sizes do not fit the others.
    """
    options = {"ignore_mismatched_sizes": True, **options}
    for given in ("output_loading_info", *SAFE):
        options.pop(given, None)
    shared = {key: options[key] for key in SHARED if key in options}
    model, info = _read(KimiAudioForCausalLM, "language model", source, WHOLE, dtype=dtype, speech=speech, **options)
    # Not for the semantic ear, whose own mask needs the plain implementations.
    tower_only = {key: options[key] for key in ("attn_implementation",) if key in options}
    tower_only |= {"subfolder": TOWER, "dtype": dtype, "key_mapping": {PREFIX: ""}}
    tower, tower_info = _read(WhisperEncoder, "Whisper encoder", source, WHOLE, **tower_only, **shared)
    tower_info["unexpected_keys"] = [name for name in tower_info["unexpected_keys"] if not UNUSED_TOWER.match(name)]
    place, shared = _codes_place(source, shared)
    codes, codes_info = _read(
        CodesEncoder, "semantic tokenizer", place, APART, dtype=torch.float32, key_mapping={PREFIX: ""}, **shared
    )
    device = model.model.embed_tokens.weight.device
    model.set_tower(tower.to(device))
    model.set_tokenizer(codes.to(device))
    parts = {"": info, "audio_tower.": tower_info, "audio_tokenizer.": codes_info}
    heard = {getattr(model, name).config.num_mel_bins for name in EARS}
    if len(heard) > 1:
        raise UndersongError(
            f"The two ears of {source} hear {sorted(heard)} mel bands, and one feature extractor serves both; "
            f"give a {TOWER} and a {CODES} that fit."
        )
    # The release's own stop tokens are those of its audio stream; text ends here.
    model.generation_config.eos_token_id = model.config.kimia_text_eos
    model.generation_config.pad_token_id = model.config.pad_token_id
    return model.eval(), {fault: _merged(parts, fault) for fault in FAULTS}


def kimi_skeleton(source: str | Path, speech: bool = False, **options: Any) -> KimiAudioForCausalLM:
    """The same model without weights (on the meta device), from the configs alone: to count its memory."""
    here = {key: options[key] for key in PLACE if key in options}
    place, there = _codes_place(source, here)
    config = _config(KimiAudioConfig, "config", source, WHOLE, **here)
    tower = _config(WhisperConfig, "Whisper encoder's config", source, WHOLE, subfolder=TOWER, **here)
    codes = _config(CodesConfig, "semantic tokenizer's config", place, APART, **there)
    with torch.device("meta"):
        return KimiAudioForCausalLM(config, tower, codes, speech).eval()


def kimi_extractor(source: str | Path, **options: Any) -> WhisperFeatureExtractor:
    """The feature extractor of both ears; `options`: revision, cache_dir and the like."""
    try:
        return WhisperFeatureExtractor.from_pretrained(source, subfolder=TOWER, **options)
    except UNREADABLE as error:
        hint = f"give a folder with {TOWER}/preprocessor_config.json"
        raise _unread("feature extractor", source, error, hint) from error


def save_kimi(
    model: KimiAudioForCausalLM, folder: str | Path, extractor: WhisperFeatureExtractor | None = None
) -> Path:
    """Writes the layout that `load_kimi` reads, every name as released; the tokenizer's files are not its own.

    `extractor` is written into both ears' folders; without it one of 16 kHz that fits the Whisper encoder's window.
    """
    folder = Path(folder)
    if model.audio_tower is None or model.audio_tokenizer is None:
        raise UndersongError(f"A Kimi-Audio without both ears cannot be saved as a release in {folder}; set them.")
    own = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith(EARS)}
    model.save_pretrained(folder, state_dict=own)
    extractor = extractor or _extractor(model.audio_tower.config)
    for name, ear in ((TOWER, model.audio_tower), (CODES, model.audio_tokenizer)):
        part = folder / name
        part.mkdir(parents=True, exist_ok=True)
        ear.config.save_pretrained(part)
        extractor.save_pretrained(part)
        weights = {f"model.encoder.{key}": tensor.contiguous() for key, tensor in ear.state_dict().items()}
        save_file(weights, part / "model.safetensors", metadata={"format": "pt"})
    return folder


def _read(network: Any, part: str, place: str | Path, hint: str, **options: Any) -> tuple[Any, dict[str, Any]]:
    try:
        model, info = network.from_pretrained(place, output_loading_info=True, **SAFE, **options)
    except UNREADABLE as error:
        raise _unread(part, place, error, hint) from error
    return model, info


def _config(kind: Any, part: str, place: str | Path, hint: str, **options: Any) -> Any:
    """Whisper's class makes a default of a file that is not there, so that is looked for first."""
    file = Path(place) / str(options.get("subfolder", "")) / "config.json"
    if Path(place).is_dir() and not file.is_file():
        raise _unread(part, place, FileNotFoundError(f"no {file.relative_to(place)}"), hint)
    try:
        return kind.from_pretrained(place, **options)
    except UNREADABLE as error:
        raise _unread(part, place, error, hint) from error


def _codes_place(source: str | Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Where the semantic tokenizer is; a revision of Kimi-Audio is none of the other release's."""
    inside = Path(source) / CODES
    if inside.is_dir():
        return str(inside), options
    return CODES_ID, {key: value for key, value in options.items() if key != "revision"}


def _merged(parts: dict[str, dict[str, Any]], fault: str) -> list[Any]:
    """Names of one fault in all parts: strings, or (name, shape, shape) where sizes differ."""

    def named(prefix: str, faults: Iterable[Any]) -> list[Any]:
        return [(prefix + f[0], *f[1:]) if isinstance(f, tuple) else prefix + f for f in faults]

    return [name for prefix, info in parts.items() for name in sorted(named(prefix, info[fault]))]


def _extractor(config: WhisperConfig) -> WhisperFeatureExtractor:
    rate, hop = 16_000, 160
    seconds = config.max_source_positions * FRAMES_A_STATE * hop // rate
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, sampling_rate=rate, hop_length=hop, chunk_length=seconds
    )


def _unread(part: str, source: str | Path, error: Exception, hint: str) -> UndersongError:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return UndersongError(f"The {part} of Kimi-Audio at {source} could not be loaded ({reason}); {hint}.")
