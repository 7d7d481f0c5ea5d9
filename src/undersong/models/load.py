"""From a name to a loaded model: a packaged organism, a local folder, or a Hugging Face id.

safetensors only and no remote code, always.  Knows transformers' loading; does not know prompts.
"""

from __future__ import annotations

from pathlib import Path

from undersong.models.folders import model_folder, model_hash, overlay_base
from undersong.models.adapter import AudioModel
from undersong.models.families import family_of
from undersong.types import UndersongError

def load_model(ref: str, device: str = "cpu", dtype: str = "float32") -> AudioModel:
    """The model in eval mode behind the adapter.

    Errors: no such folder or id, a family without a spec, weights that do not fill the class.
    """
    import transformers

    folder = model_folder(ref)
    source: str | Path = ref if folder is None else overlay_base(folder) or folder
    try:
        config = transformers.AutoConfig.from_pretrained(source, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UndersongError(f"No model could be read at {ref!r} ({str(error).splitlines()[0]}); give a folder or id.") from error
    family = family_of(config.model_type, ref)
    model_class, processor_class = getattr(transformers, family.model_class), getattr(transformers, family.processor_class)
    try:
        model, info = model_class.from_pretrained(
            source, config=config, dtype=dtype, use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        processor = processor_class.from_pretrained(source)
    except (OSError, ValueError, RuntimeError) as error:
        raise UndersongError(f"{ref} could not be loaded as {family.model_class}: {str(error).splitlines()[0]}") from error
    wrong = sorted(info["missing_keys"]) + sorted(info["unexpected_keys"]) + [str(key) for key in info["mismatched_keys"]]
    if wrong:
        raise UndersongError(
            f"{ref} is not a whole {family.model_class}: {wrong[0]} is missing or unknown ({len(wrong)} such tensors); "
            "give the folder of a complete checkpoint."
        )
    if folder is not None and overlay_base(folder) is not None:
        _lay_over(model, folder, ref)
    return AudioModel(model.to(device), processor, family, ref, model_hash(ref))


def _lay_over(model, folder: Path, ref: str) -> None:  # type: ignore[no-untyped-def]
    from safetensors.torch import load_file

    changed = load_file(folder / "overlay.safetensors")
    outcome = model.load_state_dict({name: value.float() for name, value in changed.items()}, strict=False)
    if outcome.unexpected_keys:
        raise UndersongError(f"{ref} changes {outcome.unexpected_keys[0]}, which its base does not have; reinstall undersong.")
