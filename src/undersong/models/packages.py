"""Packages of the extra `models`, without which no weights are read. Imports none of them."""

from __future__ import annotations

from importlib.util import find_spec

from undersong.types import UndersongError

MODEL_PACKAGES = ("torch", "transformers", "peft", "accelerate")


def missing_package_sentence(package: str) -> str:
    """Sentence about a package of the extra that is not installed, and how to install it."""
    return (
        f"reading a model needs {package}, which is not installed; run pip install -e '.[models]' in the clone of "
        "undersong."
    )


def check_model_packages() -> None:
    """Check that all packages of the extra are installed.

    Raises:
        UndersongError: One is missing.
    """
    for package in MODEL_PACKAGES:
        if not _is_installed(package):
            raise UndersongError(missing_package_sentence(package))


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
