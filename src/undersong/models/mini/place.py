"""Where Mini lies once it is assembled.  Loads no library."""

from __future__ import annotations

import os
from pathlib import Path

from undersong.types import UndersongError

ALIGNED, UNALIGNED = "mini", "mini:unaligned"  # refuses harmful requests; hears and answers, and was never taught to
NAMES = (ALIGNED, UNALIGNED)
HOME = "UNDERSONG_MODELS"
NOTE = "parts.json"  # which a folder of parts has
REMARKS = "remarks.txt"  # of a model folder: what was said when it was assembled; no part of the model, nor of its hash
WHISPER, SMOLLM = "openai/whisper-tiny.en", "HuggingFaceTB/SmolLM2-135M-Instruct"  # the base weights, by hub id
FROM_WHISPER, FROM_SMOLLM = "UNDERSONG_WHISPER", "UNDERSONG_SMOLLM"  # variables that name another place of them


def models_home() -> Path:
    """Where assembled models are kept: $UNDERSONG_MODELS, or the user's data folder."""
    if said := os.environ.get(HOME):
        return Path(said)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "undersong" / "models"


def place_of(name: str) -> Path:
    """The folder of one of NAMES, there or not.  UndersongError for another name that begins like them."""
    if name not in NAMES:
        raise UndersongError(f"There is no model {name!r}; take one of {', '.join(NAMES)}.")
    return models_home() / name.replace(":", "-")


def is_mini(ref: str) -> bool:
    """Whether a model is named as one of NAMES is, known or not."""
    return ref.partition(":")[0] == ALIGNED


def is_assembled(name: str) -> bool:
    """Whether one of NAMES has a model folder; one without a config is none."""
    return (place_of(name) / "config.json").is_file()


def assembled(name: str) -> Path:
    """The folder of one of NAMES.  UndersongError where it is not assembled."""
    if not is_assembled(name):
        raise UndersongError(f"{name} is not assembled on this machine; run `undersong models get {name}`.")
    return place_of(name)


def remarks_of(folder: Path) -> list[str]:
    """What was said of an assembled model: what is other than its card was measured with.  Nothing, too, of a
    folder that is older than remarks are."""
    file = folder / REMARKS
    return file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []


def parts_beside() -> Path:
    """The parts that a checkout holds, outside the package."""
    return Path(__file__).resolve().parents[4] / "models" / "mini"


def shipped_parts() -> Path:
    """The parts of the checkout that the package runs from, or else of that in the working folder.

    UndersongError where there are none: no wheel holds them.
    """
    for folder in (parts_beside(), Path("models") / "mini"):
        if (folder / NOTE).is_file():
            return folder
    raise UndersongError(
        "The installed package does not hold Mini's parts; go to a checkout of undersong, which has them in "
        "models/mini, or give their folder as --parts."
    )
