"""Loading of a model by name: a packaged organism, a local folder or a Hugging Face id (`org/name@revision`).

Safetensors only, and no remote code.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from undersong.escaping import describe_error
from undersong.extras import install_hint
from undersong.models.audio_lm import AudioModel
from undersong.models.chat import Processor, load_processor
from undersong.models.checkpoint_files import describe_loading_error
from undersong.models.families import Family, import_object, network_class
from undersong.models.headers import read_shapes, weights_file
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.models.memory import check_memory
from undersong.models.network_config import load_config
from undersong.models.out_of_memory import release_memory
from undersong.models.pretrained import SAFE_LOADING, load_pretrained
from undersong.models.refs import model_folder, model_hash, overlay_base, resolve_model
from undersong.models.weights import LOADING_ERRORS, merge_published_lora
from undersong.types import UndersongError

# torch's names of CPU capabilities: Intel; AMD and Intel; Arm (twice)
BFLOAT16_CAPABILITIES = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")


def load_model(ref: str, loading: LoadOptions = DEFAULT_LOAD_OPTIONS, processor_ref: str | None = None) -> AudioModel:
    """Load a model in eval mode, wrapped in an `AudioModel`.

    `processor_ref` is a model of the same family whose tokenizer, feature extractor and chat template are used; None
    uses the model's own. Checkpoints of a training may have none.

    Raises UndersongError for an unknown folder or id, a family without a specification, weights that do not fill the
    class, another model's tokenizer, a missing device, or too little memory.
    """
    check_device(loading.device)
    _check_packages(loading)
    source, options, family = resolve_model(ref)
    load_config(source, family, ref, options)  # first, because the parts below read config.json too
    release_memory()  # a model that was dropped leaves its memory in PyTorch's cache
    check_memory(ref, source, options, family, loading)
    if processor_ref is None:
        processor = load_processor(source, family, ref, **options)
    else:
        processor_source, processor_options, _ = resolve_model(processor_ref)
        processor = load_processor(processor_source, family, processor_ref, **processor_options)
    model, merged = _load_network(source, ref, family, loading, options)
    folder = model_folder(ref)
    if folder is not None and overlay_base(folder) is not None:
        _apply_overlay(model, folder, ref)
    check_token_ids(model, processor, family, ref)
    network = model if loading.device_map or loading.quantize else model.to(loading.device)
    return AudioModel(
        network, processor, family, ref, model_hash(ref), merged, loading.batch_size, options.get("revision")
    )


def check_device(device: str) -> None:
    """Raise UndersongError for a device that torch does not know, or that this machine does not have."""
    try:
        torch_device = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA" by an AssertionError
        reason = describe_error(error)
        raise UndersongError(
            f"The device {device!r} cannot be used ({reason}); take cpu, or a device of this machine."
        ) from None
    if torch_device.type == "meta":
        raise UndersongError("The device 'meta' holds no weights; take cpu, or a device of this machine.")


def supports_bfloat16(device: str) -> bool:
    """True if a device computes bfloat16 natively, without emulation; False also if torch does not say."""
    if device == "cpu":
        capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
        return any(capabilities.get(name) for name in BFLOAT16_CAPABILITIES)
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def _check_packages(loading: LoadOptions) -> None:
    if loading.quantize and find_spec("bitsandbytes") is None:
        raise UndersongError(f"Loading in {loading.quantize} bits needs bitsandbytes; {install_hint('quantize')}.")


def _load_network(
    source: str | Path, ref: str, family: Family, loading: LoadOptions, options: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """Load the network, with every tensor of the class filled and none left over, and merge its published adapters."""
    class_name = family.model_class.rpartition(":")[2]
    try:
        load_options: dict[str, Any] = {
            "dtype": loading.dtype,
            **SAFE_LOADING,
            "ignore_mismatched_sizes": True,  # reported below, by name
            "output_loading_info": True,
            **options,
            **_placement_options(loading, family),
        }
        if family.loader:
            model, info = import_object(family.loader)(source, **load_options)
        else:
            model, info = load_pretrained(network_class(family).from_pretrained, source, ref, **load_options)
        merged = [folder for folder in family.merged if merge_published_lora(model, source, folder, options)]
    except LOADING_ERRORS as error:
        if Path(source).is_dir():
            read_shapes(source, ref, options)  # names the file, if one is missing or damaged
        reason = describe_loading_error(error)
        raise UndersongError(
            f"{ref} could not be loaded as {class_name} ({reason}); give the folder of a complete checkpoint, and "
            "options that are installed."
        ) from error
    _check_complete(info, f"{ref} is not a whole {class_name}", weights_file(source, options))
    return model, merged


def _placement_options(loading: LoadOptions, family: Family) -> dict[str, Any]:
    """transformers' options for device and precision; encoder, projector and head are never quantized."""
    options: dict[str, Any] = {}
    if loading.attention:
        options["attn_implementation"] = loading.attention
    if loading.device_map:
        options["device_map"] = loading.device_map
    elif (device := torch.device(loading.device)).type == "cuda":
        # Straight to the device: by way of the CPU, the weights would need as much main memory.
        options["device_map"] = {"": str(device)}
    if loading.quantize:
        from transformers import BitsAndBytesConfig

        compute_dtype = {"bnb_4bit_compute_dtype": getattr(torch, loading.dtype)} if loading.quantize == 4 else {}
        skip_modules = {"llm_int8_skip_modules": ["lm_head", *family.frozen]}
        precision = {f"load_in_{loading.quantize}bit": True}
        options["quantization_config"] = BitsAndBytesConfig(**precision, **compute_dtype, **skip_modules)
        options.setdefault("device_map", {"": loading.device})
    return options


def _check_complete(info: Mapping[str, Any], subject: str, file: str) -> None:
    mismatches = {
        "missing_keys": "lacks",
        "unexpected_keys": "holds the unknown",
        "mismatched_keys": "has another shape of",
    }
    for key, phrase in mismatches.items():
        if names := sorted(str(name[0] if isinstance(name, tuple) else name) for name in info[key]):
            raise UndersongError(
                f"{subject}: its {file} {phrase} {names[0]} ({len(names)} such tensors); give the folder of a complete "
                "checkpoint."
            )


def check_token_ids(model: Any, processor: Processor, family: Family, ref: str) -> None:
    """Check that the tokenizer is this model's: the network's placeholder id, and an embedding for every id."""
    expected_id = attrgetter(family.placeholder)(model.config)
    if processor.audio_token_id != expected_id:
        raise UndersongError(
            f"The tokenizer of {ref} gives {family.audio_token} the id {processor.audio_token_id}, and the network "
            f"looks for {expected_id}; give the tokenizer of this model."
        )
    embedding_rows = model.get_input_embeddings().num_embeddings
    if (vocabulary_size := max(processor.tokenizer.get_vocab().values()) + 1) > embedding_rows:
        raise UndersongError(
            f"The tokenizer of {ref} has ids from 0 to {vocabulary_size - 1}, that is {vocabulary_size}, and the "
            f"network has {embedding_rows} embeddings; give all tokenizer files of this model, with "
            "tokenizer_config.json."
        )


def _apply_overlay(model: Any, folder: Path, ref: str) -> None:
    """Replace the tensors that an overlay changes."""
    from safetensors.torch import load_file

    file = folder / "overlay.safetensors"
    try:
        load_result = model.load_state_dict(load_file(file), strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = describe_error(error)
        raise UndersongError(f"{ref} cannot be applied to its base ({reason}); install undersong again.") from error
    if load_result.unexpected_keys:
        name = load_result.unexpected_keys[0]
        raise UndersongError(f"{ref} changes {name}, which its base does not have; install undersong again.")
