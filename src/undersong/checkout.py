"""Folders of a checkout that neither the wheel nor the source distribution holds."""

from __future__ import annotations

from pathlib import Path


def checkout_folder(name: str) -> Path:
    """Folder `models/NAME` of the checkout that the package runs from, whether it exists or not."""
    return Path(__file__).resolve().parents[2] / "models" / name


def find_checkout_folder(name: str, file: str) -> Path | None:
    """Folder `models/NAME` that holds `file`: of the checkout that the package runs from, or else of the working
    folder. None if there is neither.
    """
    for folder in (checkout_folder(name), Path("models") / name):
        if (folder / file).is_file():
            return folder
    return None
