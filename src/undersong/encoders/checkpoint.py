"""Hugging Face checkpoints of encoders: find or download the files, load config, feature extractor and network.

Safetensors only, no remote code, no missing weights.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.pretrained import SAFE_LOADING, load_pretrained
from undersong.models.refs import model_folder, split_revision
from undersong.types import UndersongError

PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
CHECKPOINT_FILES: tuple[str, ...] = ("*.json", "*.txt", "model.safetensors", "model-*-of-*.safetensors")
NO_WEIGHTS_MESSAGE = (
    "{where} has no weights as safetensors; convert them (`save_pretrained` of transformers), or name a revision that "
    "has them (ID@REVISION)."
)
# Tensors that inference never reads and some releases lack: the replacement of masked frames in pretraining, and the
# training loss of x-vector heads.
UNUSED_TENSORS = ("masked_spec_embed", "objective.weight")


def checkpoint_folder(ref: str | Path, files: Sequence[str] = CHECKPOINT_FILES) -> Path:
    """Folder with the files of `ref`. The `files` (patterns) of a Hugging Face id are downloaded to its cache.

    Raises UndersongError if there is no such folder or id, or the id cannot be reached (offline).
    """
    folder = model_folder(str(ref))
    if folder is not None:
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, revision = split_revision(str(ref))
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"There is no model at {str(ref)!r} ({reason}); give the folder of a saved model, or a Hugging Face id "
            "that can be reached."
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """Read `config.json` of a checkpoint and check that it names its model_type."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UndersongError(
            f"No config.json can be read in {folder} ({error}); give a saved model's folder."
        ) from None
    if not isinstance(config, dict) or not isinstance(config.get("model_type"), str):
        raise UndersongError(f"config.json in {folder} names no model_type; give a saved model's folder.")
    return config


def load_extractor(folder: Path, class_name: str) -> Any:
    """Load the checkpoint's own feature extractor, of transformers' class `class_name`."""
    import transformers

    if not any((folder / name).is_file() for name in PREPROCESSOR_FILES):
        raise UndersongError(f"No preprocessor_config.json in {folder}; copy it from the model's release.")
    try:
        load = getattr(transformers, class_name).from_pretrained
        return load_pretrained(load, folder, str(folder), local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"The preprocessor in {folder} is not a {class_name} ({reason}); use the release's."
        ) from None


def load_network(folder: Path, class_name: str, dtype: str) -> Any:
    """Load a network of transformers' class `class_name` in eval mode, without heads that the class lacks.

    Raises UndersongError if a weight of the class is missing or has another shape; it would be a random number.
    """
    import transformers
    from safetensors import SafetensorError

    if not list(folder.glob("*.safetensors")):
        raise UndersongError(NO_WEIGHTS_MESSAGE.format(where=folder))
    try:
        model, info = load_pretrained(
            getattr(transformers, class_name).from_pretrained,
            folder,
            str(folder),
            local_files_only=True,
            **SAFE_LOADING,
            dtype=dtype,
            ignore_mismatched_sizes=True,  # reported below, by name
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError, SafetensorError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"{folder} cannot be loaded as {class_name} ({reason}); give a complete checkpoint."
        ) from error
    missing = [str(name) for name in info["missing_keys"] if not str(name).endswith(UNUSED_TENSORS)]
    mismatched = [str(name[0] if isinstance(name, tuple) else name) for name in info["mismatched_keys"]]
    if invalid := sorted({*missing, *mismatched}):
        raise UndersongError(
            f"The weights in {folder} do not fit its config: {invalid[0]} and {len(invalid) - 1} more are missing or "
            f"of another shape for {class_name}; give a complete checkpoint."
        )
    return model.eval()
