"""Loading and saving of Kimi-Audio in the folder layout of its release: the language model, the Whisper encoder and the
semantic tokenizer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import WhisperConfig, WhisperFeatureExtractor
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from undersong.models.checkpoint_files import check_extractor_settings, describe_loading_error
from undersong.models.hub_files import find_file
from undersong.models.kimi.audio_tokenizer import CHECKPOINT_PREFIX, FRAMES_PER_STATE, CodesConfig, CodesEncoder
from undersong.models.kimi.network import AUDIO_MODULES, SPEECH_TENSORS, KimiAudioConfig, KimiAudioForCausalLM
from undersong.models.pretrained import SAFE_LOADING, load_pretrained
from undersong.models.weights import LOADING_ERRORS, WeightPart
from undersong.types import UndersongError

WHISPER_FOLDER, TOKENIZER_FOLDER = "whisper-large-v3", "glm-4-voice-tokenizer"
RELEASE_ARCHITECTURES = ("MoonshotKimiaForCausalLM",)
TOKENIZER_ID = "zai-org/glm-4-voice-tokenizer"
WHISPER_DECODER_TENSORS = re.compile(r"model\.decoder\.|decoder\.|proj_out\.")
HUB_OPTIONS = ("revision", "cache_dir", "local_files_only", "token", "force_download")
SHARED_OPTIONS = (*HUB_OPTIONS, "ignore_mismatched_sizes")  # options for the audio encoders too
RELEASE_HINT = "give the folder of a complete Kimi-Audio release"
TOKENIZER_HINT = (
    f"it is no part of Kimi-Audio's release: fetch {TOKENIZER_ID}, or put it into {TOKENIZER_FOLDER}/ of the model's "
    "folder"
)
KEY_MISMATCHES = ("missing_keys", "unexpected_keys", "mismatched_keys")


def load_kimi(
    source: str | Path, dtype: str | torch.dtype = "bfloat16", speech: bool = False, **options: Any
) -> tuple[KimiAudioForCausalLM, dict[str, Any]]:
    """Load the whole model in eval mode. Also returns transformers' loading info of all three parts, with prefixed
    names.

    The audio encoders are put on the device of the embeddings and are not quantized. Codes are always computed in
    float32, as in training.

    Args:
        source: Folder or Hugging Face id.
        dtype: Dtype of the language model and the Whisper encoder.
        speech: Keep the layers that generate speech.
        options: Options of `from_pretrained`: revision, device_map, attn_implementation, quantization_config.

    Raises:
        UndersongError: A part that cannot be read, or whose sizes do not fit the others.
    """
    options = {"ignore_mismatched_sizes": True, **options}
    for option in ("output_loading_info", "trust_remote_code", *SAFE_LOADING):
        options.pop(option, None)
    shared_options = {key: options[key] for key in SHARED_OPTIONS if key in options}
    model, info = _load_part(
        KimiAudioForCausalLM, "language model", source, RELEASE_HINT, dtype=dtype, speech=speech, **options
    )
    # Not for the semantic tokenizer, whose own mask needs the plain implementations.
    tower_options = {key: options[key] for key in ("attn_implementation",) if key in options}
    tower_options |= {"subfolder": WHISPER_FOLDER, "dtype": dtype, "key_mapping": {CHECKPOINT_PREFIX: ""}}
    tower, tower_info = _load_part(
        WhisperEncoder, "Whisper encoder", source, RELEASE_HINT, **tower_options, **shared_options
    )
    tokenizer_source, shared_options = _tokenizer_source(source, shared_options)
    codes, codes_info = _load_part(
        CodesEncoder,
        "semantic tokenizer",
        tokenizer_source,
        TOKENIZER_HINT,
        dtype=torch.float32,
        key_mapping={CHECKPOINT_PREFIX: ""},
        **shared_options,
    )
    device = model.model.embed_tokens.weight.device
    model.set_tower(tower.to(device))
    model.set_tokenizer(codes.to(device))
    unused = SPEECH_TENSORS, WHISPER_DECODER_TENSORS, codes.unused_tensors
    for part_info, pattern in zip((info, tower_info, codes_info), unused):
        part_info["unexpected_keys"] = [name for name in part_info["unexpected_keys"] if not pattern.match(name)]
    parts = {"": info, "audio_tower.": tower_info, "audio_tokenizer.": codes_info}
    mel_bins = {getattr(model, name).config.num_mel_bins for name in AUDIO_MODULES}
    if len(mel_bins) > 1:
        raise UndersongError(
            f"The two audio encoders of {source} take {sorted(mel_bins)} mel bands, and one feature extractor serves "
            f"both; give a {WHISPER_FOLDER} and a {TOKENIZER_FOLDER} that fit."
        )
    # The release's own stop tokens are those of its audio stream; text ends here.
    model.generation_config.eos_token_id = model.config.kimia_text_eos
    model.generation_config.pad_token_id = model.config.pad_token_id
    return model.eval(), {mismatch: _merge_mismatches(parts, mismatch) for mismatch in KEY_MISMATCHES}


def kimi_skeleton(source: str | Path, speech: bool = False, **options: Any) -> KimiAudioForCausalLM:
    """Build the model without weights (on the meta device) from the configs alone, to count its memory."""
    hub_options = {key: options[key] for key in HUB_OPTIONS if key in options}
    tokenizer_source, tokenizer_options = _tokenizer_source(source, hub_options)
    config = _load_config(KimiAudioConfig, "config", source, RELEASE_HINT, **hub_options)
    tower = _load_config(
        WhisperConfig, "Whisper encoder's config", source, RELEASE_HINT, subfolder=WHISPER_FOLDER, **hub_options
    )
    codes = _load_config(
        CodesConfig, "semantic tokenizer's config", tokenizer_source, TOKENIZER_HINT, **tokenizer_options
    )
    with torch.device("meta"):
        return KimiAudioForCausalLM(config, tower, codes, speech).eval()


def kimi_weight_parts(source: str | Path, **options: Any) -> list[WeightPart]:
    """The three networks that `load_kimi` fills, with the place of their weights, to compare them without loading."""
    hub_options = {key: options[key] for key in HUB_OPTIONS if key in options}
    tokenizer_source, tokenizer_options = _tokenizer_source(source, hub_options)
    skeleton = kimi_skeleton(source, **hub_options)
    assert skeleton.audio_tower is not None
    assert skeleton.audio_tokenizer is not None
    encoder_names = {CHECKPOINT_PREFIX: ""}
    return [
        WeightPart(KimiAudioForCausalLM, skeleton.config, source, hub_options, unused=SPEECH_TENSORS),
        WeightPart(
            WhisperEncoder, skeleton.audio_tower.config, source, hub_options, WHISPER_FOLDER, "audio_tower.",
            encoder_names, WHISPER_DECODER_TENSORS,
        ),
        WeightPart(
            CodesEncoder, skeleton.audio_tokenizer.config, tokenizer_source, tokenizer_options,
            prefix="audio_tokenizer.", key_mapping=encoder_names,
            unused=skeleton.audio_tokenizer.unused_tensors,
        ),
    ]  # fmt: skip


def kimi_extractor(source: str | Path, **options: Any) -> WhisperFeatureExtractor:
    """Load the feature extractor of both audio encoders. `options` are those of `from_pretrained`, such as revision."""
    file, options = "preprocessor_config.json", {**options, "subfolder": WHISPER_FOLDER}
    check_extractor_settings(source, str(source), options)
    try:
        if Path(source).is_dir() and find_file(source, file, options) is None:
            raise FileNotFoundError(f"there is no {WHISPER_FOLDER}/{file}")
        extractor: WhisperFeatureExtractor = load_pretrained(
            WhisperFeatureExtractor.from_pretrained, source, str(source), files=(file,), **options
        )
        return extractor
    except LOADING_ERRORS as error:
        hint = f"give a folder with {WHISPER_FOLDER}/preprocessor_config.json"
        raise _loading_error("feature extractor", source, error, hint) from error


def save_kimi(
    model: KimiAudioForCausalLM, folder: str | Path, extractor: WhisperFeatureExtractor | None = None
) -> Path:
    """Write the layout that `load_kimi` reads, with the release's names. The files of the text tokenizer are not
    included.

    `extractor` is written to the folders of both audio encoders (default: one for 16 kHz that fits the Whisper
    encoder's window).
    """
    folder = Path(folder)
    if model.audio_tower is None or model.audio_tokenizer is None:
        raise UndersongError(
            f"A Kimi-Audio without both audio encoders cannot be saved as a release in {folder}; set them."
        )
    language_model_state = {
        name: tensor for name, tensor in model.state_dict().items() if not name.startswith(AUDIO_MODULES)
    }
    model.save_pretrained(folder, state_dict=language_model_state)
    _write_release_config(folder / "config.json")
    extractor = extractor or _default_extractor(model.audio_tower.config)
    for name, encoder in ((WHISPER_FOLDER, model.audio_tower), (TOKENIZER_FOLDER, model.audio_tokenizer)):
        subfolder = folder / name
        subfolder.mkdir(parents=True, exist_ok=True)
        encoder.config.save_pretrained(subfolder)
        extractor.save_pretrained(subfolder)
        weights = {f"model.encoder.{key}": tensor.contiguous() for key, tensor in encoder.state_dict().items()}
        save_file(weights, subfolder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_release_config(file: Path) -> None:
    """Name the network as the release does: by its architecture, without a model_type."""
    config = json.loads(file.read_text(encoding="utf-8"))
    del config["model_type"]
    config["architectures"] = list(RELEASE_ARCHITECTURES)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _load_part(
    network_class: Any, part: str, source: str | Path, hint: str, **options: Any
) -> tuple[Any, dict[str, Any]]:
    try:
        model, info = load_pretrained(
            network_class.from_pretrained,
            source,
            str(source),
            output_loading_info=True,
            **SAFE_LOADING,
            **options,
        )
    except LOADING_ERRORS as error:
        raise _loading_error(part, source, error, hint) from error
    return model, info


def _load_config(config_class: Any, part: str, source: str | Path, hint: str, **options: Any) -> Any:
    """Load a config. Whisper's class replaces a missing file by defaults, so check for the file first."""
    file = Path(source) / str(options.get("subfolder", "")) / "config.json"
    if Path(source).is_dir() and not file.is_file():
        raise _loading_error(part, source, FileNotFoundError(f"no {file.relative_to(source)}"), hint)
    try:
        return load_pretrained(config_class.from_pretrained, source, str(source), **options)
    except LOADING_ERRORS as error:
        raise _loading_error(part, source, error, hint) from error


def _tokenizer_source(source: str | Path, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Folder or id of the semantic tokenizer, with hub options; a revision of Kimi-Audio does not apply to it."""
    local_folder = Path(source) / TOKENIZER_FOLDER
    if local_folder.is_dir():
        return str(local_folder), options
    return TOKENIZER_ID, {key: value for key, value in options.items() if key != "revision"}


def _merge_mismatches(parts: dict[str, dict[str, Any]], mismatch: str) -> list[Any]:
    """Names of one kind of mismatch in all parts: strings, or (name, shape, shape) if sizes differ."""

    def add_prefix(prefix: str, names: Iterable[Any]) -> list[Any]:
        return [
            (prefix + mismatched[0], *mismatched[1:]) if isinstance(mismatched, tuple) else prefix + mismatched
            for mismatched in names
        ]

    return [name for prefix, info in parts.items() for name in sorted(add_prefix(prefix, info[mismatch]))]


def _default_extractor(config: WhisperConfig) -> WhisperFeatureExtractor:
    rate, hop = 16_000, 160
    seconds = config.max_source_positions * FRAMES_PER_STATE * hop // rate
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, sampling_rate=rate, hop_length=hop, chunk_length=seconds
    )


def _loading_error(component: str, source: str | Path, error: Exception, hint: str) -> UndersongError:
    reason = describe_loading_error(error)
    return UndersongError(f"The {component} of Kimi-Audio at {source} could not be loaded ({reason}); {hint}.")
