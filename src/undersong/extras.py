"""Extras of the installation: how to install one, and whether its packages are there.

Imports none of these packages.
"""

from __future__ import annotations

from importlib.util import find_spec

from undersong.types import UndersongError

MODEL_PACKAGES = ("torch", "transformers", "peft", "accelerate")
EXTRA_BY_PACKAGE = {
    **dict.fromkeys((*MODEL_PACKAGES, "huggingface_hub"), "models"),
    **dict.fromkeys(("statsmodels", "matplotlib"), "studies"),
}
PURPOSE_BY_EXTRA = {"models": "reading a model", "studies": "combining runs or studies"}


def install_hint(extra: str) -> str:
    """The command that installs an extra, as a part of a sentence."""
    return f"pip install -e '.[{extra}]' in the clone of undersong"


def missing_package_sentence(package: str, purpose: str | None = None) -> str:
    """Sentence about a package of an extra that is not installed, and how to install it.

    Args:
        package: A key of `EXTRA_BY_PACKAGE`.
        purpose: What needs it; by default what its extra is for.
    """
    extra = EXTRA_BY_PACKAGE[package]
    purpose = purpose or PURPOSE_BY_EXTRA[extra]
    return f"{purpose} needs {package}, which is not installed; run {install_hint(extra)}."


def check_package(package: str, purpose: str) -> None:
    """Check that a package of an extra is installed.

    Args:
        package: A key of `EXTRA_BY_PACKAGE`.
        purpose: What needs it, as the beginning of a sentence.

    Raises:
        UndersongError: It is not installed.
    """
    if not is_installed(package):
        raise UndersongError(missing_package_sentence(package, purpose))


def check_model_packages() -> None:
    """Check that all packages of the extra `models` are installed.

    Raises:
        UndersongError: One is missing.
    """
    for package in MODEL_PACKAGES:
        check_package(package, PURPOSE_BY_EXTRA["models"])


def is_installed(package: str) -> bool:
    """True if a package can be found; it is not imported."""
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
