"""The settings of a feature extractor, checked in its file: extractors divide by some, and take negative ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.models.checkpoint_files import COPY_AGAIN, check_positive, find_file, read_json_object
from undersong.types import UndersongError

EXTRACTOR_FILES = ("processor_config.json", "preprocessor_config.json")  # the first that describes one counts
POSITIVE_SETTINGS = (
    "sampling_rate", "hop_length", "chunk_length", "feature_size", "n_fft", "win_length", "n_samples", "nb_max_frames",
)  # fmt: skip


def check_extractor_settings(source: str | Path, ref: str, options: Mapping[str, Any]) -> None:
    """Check rate, hop, window, mel bands and the like of a feature extractor, as far as its files say them.

    Args:
        source: Folder or Hugging Face id.
        ref: Name of the checkpoint in errors.
        options: Options of `from_pretrained`; a `subfolder` too.

    Raises:
        UndersongError: A file that is not a JSON object, that describes no extractor, or a number that is not positive.
    """
    described, empty = False, ""
    for name in EXTRACTOR_FILES:
        if (file := find_file(source, name, options)) is None:
            continue
        label = f"{options['subfolder']}/{name}" if options.get("subfolder") else name
        settings = read_json_object(file, label, ref)
        if name == "processor_config.json":
            settings = settings.get("feature_extractor", {})
            if not isinstance(settings, dict):
                raise UndersongError(f"The feature_extractor in {label} of {ref} is not a JSON object; {COPY_AGAIN}.")
        if settings:
            described = True
            check_positive(settings, POSITIVE_SETTINGS, label, ref)
        else:
            empty = empty or label
    if empty and not described:
        raise UndersongError(f"{empty} of {ref} describes no feature extractor; {COPY_AGAIN}.")
