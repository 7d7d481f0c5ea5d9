"""Names, folders and environment variables of Mini: assembled models, base weights, learned parts.

Imports no library.
"""

from __future__ import annotations

import os
from pathlib import Path

from undersong.checkout import checkout_folder, find_checkout_folder
from undersong.types import UndersongError

ALIGNED, UNALIGNED = "mini", "mini:unaligned"  # refuses harmful requests; was never trained to refuse
MINI_NAMES = (ALIGNED, UNALIGNED)
MODELS_HOME_VARIABLE = "UNDERSONG_MODELS"
PARTS_FOLDER = "mini"  # in the checkout's `models`
PARTS_FILE = "parts.json"  # in a folder of parts
REMARKS_FILE = "remarks.txt"  # in a model folder: remarks from assembling it; no part of the model or its hash
WHISPER_ID, SMOLLM_ID = "openai/whisper-tiny.en", "HuggingFaceTB/SmolLM2-135M-Instruct"  # the base weights, by hub id
WHISPER_FOLDER, SMOLLM_FOLDER = "whisper-tiny.en", "smollm2-135m"  # the base weights, made of packages
WHISPER_VARIABLE, SMOLLM_VARIABLE = "UNDERSONG_WHISPER", "UNDERSONG_SMOLLM"  # variables for other paths of them


def models_home() -> Path:
    """Folder of assembled models: $UNDERSONG_MODELS, or the user's data folder."""
    if home := os.environ.get(MODELS_HOME_VARIABLE):
        return Path(home)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "undersong" / "models"


def base_weights_home() -> Path:
    """Folder of base weights that were made of packages."""
    return models_home() / "base-weights"


def mini_folder(name: str) -> Path:
    """Folder of one of MINI_NAMES, whether it exists or not. Raises UndersongError for another name."""
    if name not in MINI_NAMES:
        raise UndersongError(f"There is no model {name!r}; take one of {', '.join(MINI_NAMES)}.")
    return models_home() / name.replace(":", "-")


def is_mini_ref(ref: str) -> bool:
    """True if a reference has the form of MINI_NAMES, known or not."""
    return ref.partition(":")[0] == ALIGNED


def is_assembled(name: str) -> bool:
    """True if one of MINI_NAMES has a model folder with a config."""
    return (mini_folder(name) / "config.json").is_file()


def assembled_folder(name: str) -> Path:
    """Folder of one of MINI_NAMES. Raises UndersongError if the model is not assembled."""
    if not is_assembled(name):
        raise UndersongError(f"{name} is not assembled on this machine; run `undersong models get {name}`.")
    return mini_folder(name)


def read_remarks(folder: Path) -> list[str]:
    """Remarks from assembling a model, on differences from what its card was measured with. Empty if there are none."""
    file = folder / REMARKS_FILE
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def checkout_parts() -> Path:
    """Folder of the parts in a checkout, outside the package."""
    return checkout_folder(PARTS_FOLDER)


def shipped_parts() -> Path:
    """Folder of the parts in the checkout that the package runs from, or else in that of the working folder.

    Raises UndersongError if there are none; no wheel contains them.
    """
    if (folder := find_checkout_folder(PARTS_FOLDER, PARTS_FILE)) is not None:
        return folder
    raise UndersongError(
        "The installed package does not hold Mini's parts; go to a checkout of undersong, which has them in "
        "models/mini, or give their folder as --learned-weights."
    )
