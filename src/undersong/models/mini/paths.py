"""Names, folders and environment variables of Mini: assembled models, base weights, learned parts.

Imports no library.
"""

from __future__ import annotations

import os
from pathlib import Path

from undersong.types import UndersongError

ALIGNED, UNALIGNED = "mini", "mini:unaligned"  # refuses harmful requests; hears and answers, and was never taught to
MINI_NAMES = (ALIGNED, UNALIGNED)
MODELS_HOME_VARIABLE = "UNDERSONG_MODELS"
PARTS_FILE = "parts.json"  # which a folder of parts has
REMARKS_FILE = (
    "remarks.txt"  # of a model folder: what was said when it was assembled; no part of the model, nor of its hash
)
WHISPER_ID, SMOLLM_ID = "openai/whisper-tiny.en", "HuggingFaceTB/SmolLM2-135M-Instruct"  # the base weights, by hub id
WHISPER_VARIABLE, SMOLLM_VARIABLE = "UNDERSONG_WHISPER", "UNDERSONG_SMOLLM"  # variables that name another place of them


def models_home() -> Path:
    """Where assembled models are kept: $UNDERSONG_MODELS, or the user's data folder."""
    if home := os.environ.get(MODELS_HOME_VARIABLE):
        return Path(home)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "undersong" / "models"


def mini_folder(name: str) -> Path:
    """The folder of one of NAMES, there or not.  UndersongError for another name that begins like them."""
    if name not in MINI_NAMES:
        raise UndersongError(f"There is no model {name!r}; take one of {', '.join(MINI_NAMES)}.")
    return models_home() / name.replace(":", "-")


def is_mini_ref(ref: str) -> bool:
    """Whether a model is named as one of NAMES is, known or not."""
    return ref.partition(":")[0] == ALIGNED


def is_assembled(name: str) -> bool:
    """Whether one of NAMES has a model folder; one without a config is none."""
    return (mini_folder(name) / "config.json").is_file()


def assembled_folder(name: str) -> Path:
    """The folder of one of NAMES.  UndersongError where it is not assembled."""
    if not is_assembled(name):
        raise UndersongError(f"{name} is not assembled on this machine; run `undersong models get {name}`.")
    return mini_folder(name)


def read_remarks(folder: Path) -> list[str]:
    """What was said of an assembled model: what is other than its card was measured with.  Nothing, too, of a
    folder that is older than remarks are."""
    file = folder / REMARKS_FILE
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def checkout_parts() -> Path:
    """The parts that a checkout holds, outside the package."""
    return Path(__file__).resolve().parents[4] / "models" / "mini"


def shipped_parts() -> Path:
    """The parts of the checkout that the package runs from, or else of that in the working folder.

    UndersongError where there are none: no wheel holds them.
    """
    for folder in (checkout_parts(), Path("models") / "mini"):
        if (folder / PARTS_FILE).is_file():
            return folder
    raise UndersongError(
        "The installed package does not hold Mini's parts; go to a checkout of undersong, which has them in "
        "models/mini, or give their folder as --learned-weights."
    )
