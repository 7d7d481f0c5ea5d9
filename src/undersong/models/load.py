"""From a name to a loaded model: a packaged organism, a local folder, or a Hugging Face id (`org/name@revision`).

safetensors only and no remote code, always.  Knows transformers' loading; does not know prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError

from undersong.models.adapter import AudioModel
from undersong.models.family import Family
from undersong.models.folders import model_folder, model_hash, overlay_base
from undersong.models.identify import identify
from undersong.models.loading import PLAIN, Loading
from undersong.models.memory import check_memory
from undersong.models.merge import merge_published
from undersong.models.processor import Processor, load_processor, named
from undersong.types import UndersongError

UNREADABLE = (
    OSError, ValueError, LookupError, TypeError, AttributeError, ImportError, RuntimeError, SafetensorError,
    StrictDataclassError,
)  # fmt: skip
BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")  # torch's names of CPUs': Intel; AMD and Intel; Arm twice


def load_model(ref: str, loading: Loading = PLAIN) -> AudioModel:
    """The model in eval mode behind the adapter.

    Errors: no such folder or id, a family without a spec, weights that do not fill the class, another model's
    tokenizer, a device that is not there, more memory than there is.
    """
    check_device(loading.device)
    _check_packages(loading)
    source, options, family = identify(ref)
    check_memory(ref, source, options, family, loading)
    processor = load_processor(source, family, ref, **options)
    model, merged = _network(source, ref, family, loading, options)
    folder = model_folder(ref)
    if folder is not None and overlay_base(folder) is not None:
        _lay_over(model, folder, ref)
    _check_tokens(model, processor, family, ref)
    placed = model if loading.device_map or loading.quantize else model.to(loading.device)
    return AudioModel(placed, processor, family, ref, model_hash(ref), merged)


def check_device(device: str) -> None:
    """UndersongError for a device that torch does not know, or that this machine does not have."""
    try:
        known = torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch says "not compiled with CUDA" by an AssertionError
        reason = str(error).splitlines()[0].rstrip(".")
        raise UndersongError(
            f"The device {device!r} cannot be used ({reason}); take cpu, or one that is there."
        ) from None
    if known.type == "meta":
        raise UndersongError("The device 'meta' holds no weights; take cpu, or one that is there.")


def computes_bfloat16(device: str) -> bool:
    """Whether a device multiplies in bfloat16 itself, and does not emulate it; False too where torch does not say."""
    if device == "cpu":
        can: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not every torch has it
        return any(can.get(name) for name in BFLOAT16)
    return device.startswith("cuda") and torch.cuda.is_bf16_supported(including_emulation=False)


def _check_packages(loading: Loading) -> None:
    if loading.quantize and find_spec("bitsandbytes") is None:
        raise UndersongError(
            f"Loading in {loading.quantize} bits needs bitsandbytes; pip install 'undersong[quantize]'."
        )


def network_class(family: Family) -> Any:
    """The class of a family's networks."""
    import transformers

    return named(family.model_class) if ":" in family.model_class else getattr(transformers, family.model_class)


def _network(
    source: str | Path, ref: str, family: Family, loading: Loading, options: Mapping[str, Any]
) -> tuple[Any, list[str]]:
    """The network, every tensor of the class filled and none left over, and the published adapters merged into it."""
    read = named(family.loader) if family.loader else network_class(family).from_pretrained
    kind = family.model_class.rpartition(":")[2]
    try:
        model, info = read(
            source,
            dtype=loading.dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
            **options,
            **_placing(loading, family),
        )
        merged = [folder for folder in family.merged if merge_published(model, source, folder, options)]
    except UNREADABLE as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UndersongError(
            f"{ref} could not be loaded as {kind} ({reason}); give the folder of a complete checkpoint, and "
            "options that are installed."
        ) from error
    _check_whole(info, f"{ref} is not a whole {kind}")
    return model, merged


def _placing(loading: Loading, family: Family) -> dict[str, Any]:
    """transformers' own arguments for where and how; encoder, projector and head are never quantized."""
    placing: dict[str, Any] = {}
    if loading.attn_implementation:
        placing["attn_implementation"] = loading.attn_implementation
    if loading.device_map:
        placing["device_map"] = loading.device_map
    if loading.quantize:
        from transformers import BitsAndBytesConfig

        compute = {"bnb_4bit_compute_dtype": getattr(torch, loading.dtype)} if loading.quantize == 4 else {}
        kept = {"llm_int8_skip_modules": ["lm_head", *family.frozen]}
        bits = {f"load_in_{loading.quantize}bit": True}
        placing["quantization_config"] = BitsAndBytesConfig(**bits, **compute, **kept)
        placing.setdefault("device_map", {"": loading.device})
    return placing


def _check_whole(info: Mapping[str, Any], what: str) -> None:
    faults = {
        "missing_keys": "lacks",
        "unexpected_keys": "holds the unknown",
        "mismatched_keys": "has another shape of",
    }
    for key, said in faults.items():
        if names := sorted(str(name[0] if isinstance(name, tuple) else name) for name in info[key]):
            raise UndersongError(
                f"{what}: it {said} {names[0]} ({len(names)} such tensors); give the folder of a complete checkpoint."
            )


def _check_tokens(model: Any, processor: Processor, family: Family, ref: str) -> None:
    """The tokenizer is this model's: the placeholder has the id that the network looks for, and every id a row."""
    wanted = attrgetter(family.placeholder)(model.config)
    if processor.audio_token_id != wanted:
        raise UndersongError(
            f"The tokenizer of {ref} gives {family.audio_token} the id {processor.audio_token_id}, and the network "
            f"looks for {wanted}; give the tokenizer of this model."
        )
    rows = model.get_input_embeddings().num_embeddings
    if (ids := max(processor.tokenizer.get_vocab().values()) + 1) > rows:
        raise UndersongError(
            f"The tokenizer of {ref} has ids up to {ids - 1}, and the network {rows} embeddings; give the tokenizer of "
            "this model."
        )


def _lay_over(model: Any, folder: Path, ref: str) -> None:
    """Replace the tensors that an overlay changes."""
    from safetensors.torch import load_file

    file = folder / "overlay.safetensors"
    try:
        outcome = model.load_state_dict(load_file(file), strict=False)
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise UndersongError(f"{ref} cannot be laid over its base ({reason}); install undersong again.") from error
    if outcome.unexpected_keys:
        name = outcome.unexpected_keys[0]
        raise UndersongError(f"{ref} changes {name}, which its base does not have; install undersong again.")
