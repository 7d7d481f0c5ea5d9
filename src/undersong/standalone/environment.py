"""Checks of the installation for `undersong doctor`: Python, packages, extras, torch, memory, disk and the store. Loads
no model and needs no network."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from undersong.extras import install_hint, is_installed
from undersong.store.draft import Draft
from undersong.store.store import Store
from undersong.types import UndersongError

GB = 1e9
MIN_DISK_GB = 2.0  # for the demo's store and temporary files
MIN_MEMORY_GB = 2.0  # for the demo's process
MIN_PYTHON = (3, 11)
NAMED_PACKAGES = ("numpy", "scipy", "pyarrow")


@dataclass(frozen=True)
class EnvironmentCheck:
    """Result of one check; `passed` is True, False (must be fixed), or None (optional)."""

    name: str
    passed: bool | None
    detail: str


def check_environment(path: Path) -> Iterator[EnvironmentCheck]:
    """Yield the result of each check; `path` is the folder for results."""
    for name, check in CHECKS.items():
        yield EnvironmentCheck(name, *check())
    yield from check_extras()
    yield EnvironmentCheck("store", *_check_store(path))


def package_requirements(extra: str = "") -> dict[str, tuple[str, str | None, bool]]:
    """Requirements of the package, or of one extra: name -> (range, installed version, whether it fits)."""
    from packaging.requirements import Requirement

    needs_by_name: dict[str, tuple[str, str | None, bool]] = {}
    for line in metadata.requires("undersong") or ():
        requirement = Requirement(line)
        is_core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if (
            is_core
            if not extra
            else (not is_core and requirement.marker is not None and requirement.marker.evaluate({"extra": extra}))
        ):
            installed = _version(requirement.name)
            fits = installed is not None and requirement.specifier.contains(installed, prereleases=True)
            needs_by_name[requirement.name] = str(requirement.specifier), installed, fits
    return needs_by_name


def check_extras() -> Iterator[EnvironmentCheck]:
    """Yield one result for each extra; all extras are optional."""
    for extra in metadata.metadata("undersong").get_all("Provides-Extra") or ():
        unmet = _unmet(package_requirements(extra))
        name = f"extra {extra}"
        if unmet:
            yield EnvironmentCheck(name, None, f"{', '.join(unmet)}; {install_hint(extra)} if you need it")
        else:
            fitting_packages = package_requirements(extra)
            yield EnvironmentCheck(
                name,
                True,
                ", ".join(f"{package} {installed}" for package, (_, installed, _) in fitting_packages.items()),
            )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _unmet(needs: dict[str, tuple[str, str | None, bool]]) -> list[str]:
    return [
        f"{name} is not installed" if installed is None else f"{name} is {installed} and not {required}"
        for name, (required, installed, fits) in needs.items()
        if not fits
    ]


def _check_python() -> tuple[bool, str]:
    passed = sys.version_info >= MIN_PYTHON
    required = "" if passed else f"; undersong needs {'.'.join(map(str, MIN_PYTHON))} or newer"
    return passed, f"{platform.python_version()} on {platform.system()} {platform.machine()}{required}"


def _check_undersong() -> tuple[bool, str]:
    from undersong import __version__

    return True, f"{__version__} in {Path(__file__).parents[1]}"


def _check_packages() -> tuple[bool, str]:
    needs = package_requirements()
    if unmet := _unmet(needs):
        return False, f"{', '.join(unmet)}; reinstall undersong"
    versions = ", ".join(f"{name} {_version(name)}" for name in NAMED_PACKAGES)
    return True, f"the {len(needs)} of the core are in range, with {versions}"


def _check_torch() -> tuple[bool | None, str]:
    """Devices, and threads per process."""
    if not is_installed("torch"):
        return None, f"is not installed; {install_hint('models')} if you read models"
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        return False, f"cannot be imported ({error}); install a wheel for this machine"
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    device = f"--device cuda: {', '.join(gpus)}" if gpus else "no GPU found, so --device cpu"
    return True, f"{device}; {torch.get_num_threads()} threads per process (OMP_NUM_THREADS) of {os.cpu_count()} cores"


def _check_memory() -> tuple[bool, str]:
    import psutil

    memory = psutil.virtual_memory()
    message = f"{memory.available / GB:.1f} GB free of {memory.total / GB:.1f} GB"
    passed = memory.available >= MIN_MEMORY_GB * GB
    return passed, message if passed else f"{message}; the demo needs {MIN_MEMORY_GB:g} GB"


def _check_organisms() -> tuple[bool, str]:
    from undersong.models.refs import organism_folder, organism_names

    names = organism_names()
    complete = [name for name in names if any(organism_folder(name).glob("*.safetensors"))]
    if not names or len(complete) < len(names):
        return False, f"weights of {len(complete)} of {len(names)} organisms are installed; reinstall undersong"
    return True, f"{', '.join(names)}"


def _check_hub() -> tuple[None, str]:
    if not is_installed("huggingface_hub"):
        return None, f"huggingface_hub is not installed; {install_hint('models')} if you read models"
    from huggingface_hub import constants

    offline = (
        "HF_HUB_OFFLINE is set, so only these are used" if constants.HF_HUB_OFFLINE else "the hub is not checked here"
    )
    return None, f"models are cached in {constants.HF_HUB_CACHE}; {offline}"


def _check_store(path: Path) -> tuple[bool, str]:
    """Check that artifacts can be made: one is made, and removed again."""
    existing_folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=existing_folder, prefix=".undersong-doctor-") as trial_root:
            Store(trial_root).get_or_make("trial", 1, {}, {}, _write_trial_file)
    except (OSError, UndersongError) as error:
        return (
            False,
            f"{existing_folder} cannot be written to ({error}); give access, or choose another folder with --out",
        )
    free = shutil.disk_usage(existing_folder).free / GB
    message = f"{existing_folder} can be written to, {free:.1f} GB free"
    passed = free >= MIN_DISK_GB
    return passed, message if passed else f"{message}; the demo needs {MIN_DISK_GB:g} GB"


def _write_trial_file(draft: Draft) -> None:
    with draft.file("trial.txt") as path:
        path.write_text("tried", encoding="utf-8")


CHECKS: dict[str, Callable[[], tuple[bool | None, str]]] = {
    "python": _check_python,
    "undersong": _check_undersong,
    "packages": _check_packages,
    "torch": _check_torch,
    "memory": _check_memory,
    "organisms": _check_organisms,
    "hub": _check_hub,
}
