"""From a name to a loaded model: a packaged organism, a local folder, or a Hugging Face id.

safetensors only and no remote code, always.  Knows transformers' loading; does not know prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from undersong.models.adapter import AudioModel
from undersong.models.families import Family, family_of
from undersong.models.folders import model_folder, model_hash, overlay_base
from undersong.types import UndersongError

DTYPES = ("float32", "bfloat16", "float16")


def load_model(ref: str, device: str = "cpu", dtype: str = "float32") -> AudioModel:
    """The model in eval mode behind the adapter.

    Errors: no such folder or id, a family without a spec, weights that do not fill the class, a device that is not
    there.
    """
    _check_place(device, dtype)
    folder = model_folder(ref)
    base = overlay_base(folder) if folder is not None else None
    source: str | Path = ref if folder is None else base or folder
    family = family_of(_model_type(source, ref), ref)
    model, processor = _read(source, ref, family, dtype)
    if folder is not None and base is not None:
        _lay_over(model, folder, ref)
    return AudioModel(model.to(device), processor, family, ref, model_hash(ref))


def _check_place(device: str, dtype: str) -> None:
    if dtype not in DTYPES:
        raise UndersongError(f"There is no dtype {dtype!r} for models; take {', '.join(DTYPES)}.")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts where it was built without CUDA
        raise UndersongError(
            f"Device {device!r} cannot be used here ({str(error).splitlines()[0]}); take cpu."
        ) from error


def _model_type(source: str | Path, ref: str) -> str:
    """What the config calls the family, also where transformers does not know it."""
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(source)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UndersongError(f"No model could be read at {ref!r} ({reason}); give a folder or id.") from error
    if not config.get("model_type"):
        raise UndersongError(f"{ref!r} has no config.json with a model_type; give the folder or id of a model.")
    return str(config["model_type"])


def _read(source: str | Path, ref: str, family: Family, dtype: str) -> tuple[Any, Any]:
    """Model and processor, every tensor of the class filled and none left over."""
    import transformers

    model_class, processor_class = (
        getattr(transformers, name) for name in (family.model_class, family.processor_class)
    )
    try:
        model, info = model_class.from_pretrained(
            source,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are refused below, by name
            output_loading_info=True,
        )
        processor = processor_class.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UndersongError(f"{ref} could not be loaded as {family.model_class}: {reason}") from error
    _check_whole(info, f"{ref} is not a whole {family.model_class}")
    _check_processor(processor, ref)
    return model, processor


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


def _check_processor(processor: Any, ref: str) -> None:
    """transformers loads without these and fails later, in the middle of a run."""
    parts = {"chat template": processor.chat_template}
    parts |= {f"{name} token": getattr(processor.tokenizer, f"{name}_token") for name in ("eos", "pad")}
    if lacking := [name for name, part in parts.items() if part is None]:
        raise UndersongError(f"The tokenizer of {ref} has no {lacking[0]}; give the folder of a complete checkpoint.")


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
