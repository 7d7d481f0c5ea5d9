"""Checks of a checkpoint by its small files and the headers of its weights: no weight is read, and no GPU needed.

What they cannot see is what the weights compute; `doctor` checks that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from undersong.models.audio_features import count_placeholders
from undersong.models.audio_lm import AudioModel
from undersong.models.chat import (
    Processor,
    chat_messages,
    end_token_ids,
    load_chat_template,
    load_feature_extractor,
    load_tokenizer,
    name_tokens,
    placeholder_id,
)
from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.doctor import DiagnosticCheck
from undersong.models.families import Family
from undersong.models.headers import HeadersUnreachableError, read_file_shapes, weights_file
from undersong.models.hooks import published_end_ids
from undersong.models.hub_files import find_file
from undersong.models.load import check_token_ids
from undersong.models.load_options import QUANTIZED, LoadOptions
from undersong.models.lora import check_targets
from undersong.models.memory import GIB, count_network, meta_network
from undersong.models.network_config import load_config
from undersong.models.pretrained import load_pretrained
from undersong.models.refs import model_folder, overlay_base, resolve_model
from undersong.models.tensor_match import TensorMismatches, match_tensors, weight_parts
from undersong.models.weights import LOADING_ERRORS, published_lora_paths
from undersong.types import Prompt, Sample, UndersongError

REQUEST, SYSTEM_TEXT = "Please repeat this sentence.", "Answer in one word."
SAMPLE = Sample("check", text=REQUEST)
PROMPTS = {  # what is rendered, by the name of its line
    "prompt: audio": Prompt(SAMPLE, "check", False, "audio", "plain"),
    "prompt: text": Prompt(SAMPLE, "check", False, "text", "plain"),
    "prompt: audio + text": Prompt(SAMPLE, "check", False, "audio", "plain", instruction=REQUEST),
    "prompt: system + audio": Prompt(SAMPLE, "check", False, "audio", "system", SYSTEM_TEXT),
}


@dataclass
class Checkpoint:
    """A checkpoint whose parts are loaded one after another; a part that does not load stays None."""

    ref: str
    source: str | Path
    options: Mapping[str, Any]
    family: Family
    config: Any = None
    tokenizer: Any = None
    template: str | None = None
    extractor: Any = None
    network: Any = None  # on the meta device

    @property
    def processor(self) -> Processor:
        """Tokenizer and template. Raises UndersongError for a tokenizer without the placeholder."""
        token_id = placeholder_id(self.tokenizer, self.family, self.ref)
        family, template = self.family, self.template or ""
        return Processor(
            self.tokenizer, self.extractor, template, family.audio_token, token_id, family.audio_delimiters, self.ref
        )


Check = tuple[str, tuple[str, ...], Callable[[Checkpoint], str]]  # name, the parts that it needs, detail if it passes


def check_checkpoint(ref: str) -> Iterator[DiagnosticCheck]:
    """Run all checks of a folder or Hugging Face id. `passed` is None for what could not be checked.

    Raises UndersongError, before any line, if there is no such model or it is of no family here.
    """
    source, options, family = resolve_model(ref)
    checkpoint = Checkpoint(ref, source, options, family)
    commit = f", commit {options['revision']}" if options else ""
    yield DiagnosticCheck("family", True, f"{family.name} ({' or '.join(family.model_types)}{commit})")
    for name, needed, check in _checks(family):
        if missing := [part for part in needed if getattr(checkpoint, part) is None]:
            yield DiagnosticCheck(name, None, f"not checked, because the {missing[0]} could not be loaded")
            continue
        try:
            yield DiagnosticCheck(name, True, check(checkpoint))
        except HeadersUnreachableError as error:
            yield DiagnosticCheck(name, None, str(error))
        except UndersongError as error:
            yield DiagnosticCheck(name, False, str(error))


def _checks(family: Family) -> list[Check]:
    prompts: list[Check] = [
        (name, ("tokenizer", "template"), _prompt_check(prompt)) for name, prompt in PROMPTS.items()
    ]
    merged: list[Check] = [(folder, ("network",), _merged_check(folder)) for folder in family.merged]
    return [
        ("config", (), _check_config),
        ("tokenizer", () if family.tokenizer else ("config",), _check_tokenizer),  # AutoTokenizer reads the config
        ("template", ("tokenizer",), _check_template),
        *prompts,
        ("network", ("config",), _check_network),
        ("placeholder", ("tokenizer", "network"), _check_placeholder),
        ("stops", ("tokenizer", "network"), _check_stops),
        ("feature extractor", (), _check_extractor),
        ("weights", ("network",), _check_weights),
        *merged,
        ("memory", ("network",), _describe_memory),
        ("LoRA", ("network",), _check_lora),
    ]


def _check_config(checkpoint: Checkpoint) -> str:
    checkpoint.config = load_config(checkpoint.source, checkpoint.family, checkpoint.ref, checkpoint.options)
    return f"{type(checkpoint.config).__name__}, model_type {checkpoint.config.model_type}"


def _check_tokenizer(checkpoint: Checkpoint) -> str:
    checkpoint.tokenizer = load_tokenizer(checkpoint.source, checkpoint.family, checkpoint.ref, **checkpoint.options)
    return f"{type(checkpoint.tokenizer).__name__}, {len(checkpoint.tokenizer):,} tokens"


def _check_template(checkpoint: Checkpoint) -> str:
    family = checkpoint.family
    checkpoint.template = load_chat_template(
        checkpoint.source, checkpoint.tokenizer, family, checkpoint.ref, **checkpoint.options
    )
    origin = "the family's" if checkpoint.template == family.chat_template else "the checkpoint's"
    if family.tokenizer:
        origin = "the tokenizer's"
    return f"{origin}, {len(checkpoint.template):,} characters"


def _prompt_check(prompt: Prompt) -> Callable[[Checkpoint], str]:
    def check(checkpoint: Checkpoint) -> str:
        messages = chat_messages(prompt, checkpoint.family)
        return checkpoint.processor.prompt_text(messages, int(prompt.modality == "audio"))

    return check


def _check_network(checkpoint: Checkpoint) -> str:
    network = meta_network(checkpoint.source, checkpoint.family, checkpoint.options)
    checkpoint.network = network
    return (
        f"{type(network).__name__}, {network.num_parameters():,} parameters, {len(network.get_decoder().layers)} layers"
    )


def _check_placeholder(checkpoint: Checkpoint) -> str:
    processor = checkpoint.processor
    check_token_ids(checkpoint.network, processor, checkpoint.family, checkpoint.ref)
    return f"{processor.audio_token} is {processor.audio_token_id} in the tokenizer and in the config"


def _check_stops(checkpoint: Checkpoint) -> str:
    from transformers import GenerationConfig

    name = "generation_config.json"
    tokenizer, family = checkpoint.tokenizer, checkpoint.family
    has_file = find_file(checkpoint.source, name, checkpoint.options) is not None
    owner = _Owner(_load_generation_config(GenerationConfig, checkpoint)) if has_file else checkpoint.network
    published = published_end_ids(owner)
    ids = end_token_ids(tokenizer, family, published if family.publishes_text_end else [])
    if has_file and published and ids[0] not in published and family.publishes_text_end:
        raise UndersongError(
            f"A turn of {family.name} ends with {name_tokens(tokenizer, ids[:1])}, and {name} of {checkpoint.ref} says "
            f"{name_tokens(tokenizer, published)}; give the files of one checkpoint."
        )
    origin = f"{name} says" if has_file else f"there is no {name}, and the config says"
    own = f"{origin} {name_tokens(tokenizer, published)}"
    return f"{name_tokens(tokenizer, ids)}; {own}" + ("" if family.publishes_text_end else ", which ends its speech")


@dataclass(frozen=True)
class _Owner:
    """What has a generation config, as a network has."""

    generation_config: Any


def _load_generation_config(config_class: Any, checkpoint: Checkpoint) -> Any:
    files = ("generation_config.json",)
    try:
        return load_pretrained(
            config_class.from_pretrained, checkpoint.source, checkpoint.ref, files=files, **checkpoint.options
        )
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UndersongError(
            f"generation_config.json of {checkpoint.ref} cannot be read; copy it again from the model's release."
        ) from error


def _check_extractor(checkpoint: Checkpoint) -> str:
    extractor = load_feature_extractor(checkpoint.source, checkpoint.family, checkpoint.ref, **checkpoint.options)
    checkpoint.extractor = extractor
    bands = getattr(extractor, "feature_size", None)
    tower = checkpoint.network and checkpoint.network.get_submodule(checkpoint.family.frozen[0])
    expected_bands = getattr(getattr(tower, "config", None), "num_mel_bins", bands)
    if bands != expected_bands:
        raise UndersongError(
            f"The feature extractor of {checkpoint.ref} makes {bands} mel bands, and the audio encoder takes "
            f"{expected_bands}; give the checkpoint's own preprocessor config."
        )
    placeholders = _count_tone_placeholders(checkpoint)
    seconds = getattr(extractor, "chunk_length", None)
    window = f"windows of {seconds} s" if seconds else "no windows"
    return (
        f"{type(extractor).__name__}, {extractor.sampling_rate:,} Hz, {bands} mel bands, {window}, {placeholders} "
        "placeholders for a tone of 1 s"
    )


def _count_tone_placeholders(checkpoint: Checkpoint) -> int:
    """Run the extractor on one second of 440 Hz. Raises UndersongError if it fails, or makes no placeholder."""
    family, extractor = checkpoint.family, checkpoint.extractor
    tone = 0.1 * np.sin(2 * np.pi * 440 / family.rate * np.arange(family.rate, dtype=np.float32))
    try:
        count = count_placeholders(family, family.prepare(extractor, tone.astype(np.float32)))
    except LOADING_ERRORS as error:
        reason = describe_loading_error(error)
        raise UndersongError(
            f"The feature extractor of {checkpoint.ref} cannot take a tone of 1 s ({reason}); give the checkpoint's "
            "own preprocessor config."
        ) from error
    if count <= 0:
        raise UndersongError(
            f"The feature extractor of {checkpoint.ref} makes no placeholder of a tone of 1 s; give the checkpoint's "
            "own preprocessor config."
        )
    return count


def _check_weights(checkpoint: Checkpoint) -> str:
    parts = weight_parts(checkpoint.source, checkpoint.ref, checkpoint.family, checkpoint.options)
    mismatches = match_tensors(parts, checkpoint.ref)
    _add_overlay(checkpoint, mismatches)
    if mismatches:
        class_name = checkpoint.family.model_class.rpartition(":")[2]
        file = weights_file(checkpoint.source, checkpoint.options)
        raise UndersongError(f"{checkpoint.ref} is not a whole {class_name}: its {file} {mismatches.describe()}.")
    others = sorted({str(part.source) for part in parts} - {str(checkpoint.source)})
    beside = f", with those of {', '.join(others)}" if others else ""
    return f"{mismatches.total:,} tensors{beside}: all of the network, in its shapes, and no other"


def _add_overlay(checkpoint: Checkpoint, mismatches: TensorMismatches) -> None:
    """Compare the tensors that a packaged overlay replaces."""
    folder = model_folder(checkpoint.ref)
    if folder is None or overlay_base(folder) is None:
        return
    expected = {name: tuple(tensor.shape) for name, tensor in checkpoint.network.state_dict().items()}
    for name, shape in read_file_shapes(folder, checkpoint.ref, {}, "overlay.safetensors").items():
        if name not in expected:
            mismatches.unexpected.append(name)
        elif shape != expected[name]:
            mismatches.reshaped.append(f"{name} {list(shape)}, not {list(expected[name])}")


def _merged_check(folder: str) -> Callable[[Checkpoint], str]:
    """A check of a published adapter that is merged on loading."""

    def check(checkpoint: Checkpoint) -> str:
        if find_file(checkpoint.source, f"{folder}/adapter_config.json", checkpoint.options) is None:
            return "no such folder, so it is part of the weights"
        name = f"{folder}/adapter_model.safetensors"
        shapes = read_file_shapes(checkpoint.source, checkpoint.ref, checkpoint.options, name)
        decoder = checkpoint.network.get_decoder()
        weights = {
            path: tuple(module.weight.shape) for path, module in decoder.named_modules() if hasattr(module, "weight")
        }
        paths = published_lora_paths(shapes, f"The adapter {folder} of {checkpoint.ref}")
        for key, path in paths.items():
            inputs = shapes[key.replace("lora_B", "lora_A")]
            if weights.get(path) != (shapes[key][0], inputs[-1]):
                raise UndersongError(
                    f"{name} of {checkpoint.ref} does not fit {path} of the decoder; fetch both again."
                )
        return f"merged into {len(paths)} layers of the decoder"

    return check


def _describe_memory(checkpoint: Checkpoint) -> str:
    counts = count_network(checkpoint.network, checkpoint.family)
    options = {dtype: LoadOptions(dtype=dtype) for dtype in ("float32", "bfloat16")}
    options |= {f"{bits} bits": LoadOptions(dtype="bfloat16", quantize=bits) for bits in QUANTIZED}
    sizes = (f"{name} {_format_bytes(counts.num_bytes(loading))}" for name, loading in options.items())
    return f"weights in {', '.join(sizes)}"


def _format_bytes(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.1f} MiB"


def _check_lora(checkpoint: Checkpoint) -> str:
    family = checkpoint.family
    no_processor: Any = Processor(checkpoint.tokenizer, checkpoint.extractor, "", family.audio_token, -1, ("", ""))
    model = AudioModel(checkpoint.network, no_processor, family, checkpoint.ref, "")
    paths = model.linear_paths()
    check_targets(
        model, paths, [path for path in paths if not path.startswith(tuple(f"{name}." for name in family.frozen))]
    )
    kinds = sorted({path.rpartition(".")[2] for path in paths})
    return f"{len(paths)} linear layers of {model.layers} blocks ({', '.join(kinds)}), none in encoder or projector"
