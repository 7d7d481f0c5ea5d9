"""Extras of the installation: how to install one, and whether the packages that read models are there.

Imports none of these packages.
"""

from __future__ import annotations

from importlib.util import find_spec

from undersong.types import UndersongError

MODEL_PACKAGES = ("torch", "transformers", "peft", "accelerate")


def install_hint(extra: str) -> str:
    """The command that installs an extra, as a part of a sentence."""
    return f"pip install -e '.[{extra}]' in the clone of undersong"


def missing_package_sentence(package: str) -> str:
    """Sentence about a package of the extra `models` that is not installed, and how to install it."""
    return f"reading a model needs {package}, which is not installed; run {install_hint('models')}."


def check_model_packages() -> None:
    """Check that all packages of the extra `models` are installed.

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
