"""Can undersong work here?  Python, packages, extras, torch, memory, disk and the store; no model, no network."""

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

from undersong.store import Draft, Store
from undersong.types import UndersongError

GB = 1e9
LEAST_DISK = 2.0  # GB: a demo's store and a package's temporary files
LEAST_MEMORY = 2.0  # GB free: a demo's process
PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """One line.  `good`: yes, no (must be mended), or None (it is not needed)."""

    name: str
    good: bool | None
    said: str


def examine_environment(place: Path) -> Iterator[Finding]:
    """The findings one after the other; `place`: where results are to go."""
    for name, check in CHECKS.items():
        yield Finding(name, *check())
    yield from extras()
    yield Finding("store", *_store(place))


def requirements(extra: str = "") -> dict[str, tuple[str, str | None, bool]]:
    """What the package, or one extra of it, needs: name -> (range, the version that is here, whether it fits)."""
    from packaging.requirements import Requirement

    found: dict[str, tuple[str, str | None, bool]] = {}
    for line in metadata.requires("undersong") or ():
        need = Requirement(line)
        plain = need.marker is None or need.marker.evaluate({"extra": ""})
        if plain if not extra else (not plain and need.marker is not None and need.marker.evaluate({"extra": extra})):
            here = _version(need.name)
            fits = here is not None and need.specifier.contains(here, prereleases=True)
            found[need.name] = str(need.specifier), here, fits
    return found


def extras() -> Iterator[Finding]:
    """One finding for each extra; none of them is needed."""
    for extra in metadata.metadata("undersong").get_all("Provides-Extra") or ():
        lacking = _unfit(requirements(extra))
        name = f"extra {extra}"
        if lacking:
            yield Finding(name, None, f"{', '.join(lacking)}; pip install 'undersong[{extra}]' where it is wanted")
        else:
            there = requirements(extra)
            yield Finding(name, True, ", ".join(f"{package} {here}" for package, (_, here, _) in there.items()))


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _unfit(needs: dict[str, tuple[str, str | None, bool]]) -> list[str]:
    return [
        f"{name} is not installed" if here is None else f"{name} is {here} and not {wanted}"
        for name, (wanted, here, fits) in needs.items()
        if not fits
    ]


def _python() -> tuple[bool, str]:
    good = sys.version_info >= PYTHON
    wanted = "" if good else f"; undersong needs {'.'.join(map(str, PYTHON))} or newer"
    return good, f"{platform.python_version()} on {platform.system()} {platform.machine()}{wanted}"


def _undersong() -> tuple[bool, str]:
    from undersong import __version__

    return True, f"{__version__} in {Path(__file__).parents[1]}"


def _packages() -> tuple[bool, str]:
    needs = requirements()
    if unfit := _unfit(needs):
        return False, f"{', '.join(unfit)}; install undersong anew"
    main = ("torch", "transformers", "peft", "numpy")
    return True, f"{len(needs)} in range, with {', '.join(f'{name} {_version(name)}' for name in main)}"


def _torch() -> tuple[bool, str]:
    """What computes: devices, and threads a process."""
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library that is missing
        return False, f"cannot be imported ({error}); install a wheel for this machine"
    cards = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    device = f"--device cuda: {', '.join(cards)}" if cards else "no GPU is seen, so --device cpu"
    return True, f"{device}; {torch.get_num_threads()} threads a process (OMP_NUM_THREADS) of {os.cpu_count()} cores"


def _memory() -> tuple[bool, str]:
    import psutil

    memory = psutil.virtual_memory()
    said = f"{memory.available / GB:.1f} GB free of {memory.total / GB:.1f} GB"
    good = memory.available >= LEAST_MEMORY * GB
    return good, said if good else f"{said}; the demo takes {LEAST_MEMORY:g} GB"


def _organisms() -> tuple[bool, str]:
    from undersong.models.folders import organism_folder, organism_names

    names = organism_names()
    whole = [name for name in names if any(organism_folder(name).glob("*.safetensors"))]
    if not names or len(whole) < len(names):
        return False, f"weights of {len(whole)} of {len(names)} organisms are here; install undersong anew"
    return True, f"{', '.join(names)}"


def _hub() -> tuple[None, str]:
    from huggingface_hub import constants

    offline = "HF_HUB_OFFLINE is set: models come from there alone" if constants.HF_HUB_OFFLINE else "not asked here"
    return None, f"models are kept in {constants.HF_HUB_CACHE}; {offline}"


def _store(place: Path) -> tuple[bool, str]:
    """Whether artefacts can be made there: one is, and taken away again."""
    there = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=there, prefix=".undersong-doctor-") as trial:
            Store(trial).get_or_make("trial", 1, {}, {}, _trial)
    except (OSError, UndersongError) as error:
        return False, f"nothing can be made in {there} ({error}); give access, or choose another folder by --out"
    free = shutil.disk_usage(there).free / GB
    said = f"{there} can be written to, {free:.1f} GB free"
    good = free >= LEAST_DISK
    return good, said if good else f"{said}; a demo wants {LEAST_DISK:g} GB"


def _trial(draft: Draft) -> None:
    with draft.file("trial.txt") as path:
        path.write_text("tried", encoding="utf-8")


CHECKS: dict[str, Callable[[], tuple[bool | None, str]]] = {
    "python": _python,
    "undersong": _undersong,
    "packages": _packages,
    "torch": _torch,
    "memory": _memory,
    "organisms": _organisms,
    "hub": _hub,
}
