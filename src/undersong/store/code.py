"""Code of the user's own, named where a judge or an encoder is: found, hashed and loaded.  Does not know what it makes.

my_judge.py:lenient             a file, relative to the working directory, and a function in it
package.module:lenient          an importable module, and a function in it

It runs with the user's rights, as any script does, and only where somebody named it.  Finding and hashing run nothing.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from undersong.store.hashes import hash_file
from undersong.types import UndersongError


def split_code(ref: str) -> tuple[str, str]:
    """(file or module, name of the function); UndersongError for what is neither."""
    where, _, name = ref.rpartition(":")
    module = all(part.isidentifier() for part in where.split("."))
    if not name.isidentifier() or not (where.endswith(".py") or module):
        raise UndersongError(f"{ref!r} names no code; write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.")
    return where, name


def code_hash(ref: str) -> str:
    """SHA-256 of the source: of the file, or of every .py file of the package that the module is in.

    What that code imports from elsewhere, or reads, is in no hash: a constant in the source stands for it.
    """
    whole = hashlib.sha256()
    for name, file in sorted(_files(split_code(ref)[0]).items()):
        whole.update(f"{name}\0{hash_file(file)}\n".encode())
    return whole.hexdigest()


def load_code(ref: str) -> Any:
    """What the named function returns, called without arguments.  What it raises is its own."""
    where, name = split_code(ref)
    module = (_module_of if where.endswith(".py") else _imported)(where, code_hash(ref))
    make = getattr(module, name, None)
    if not callable(make):
        raise UndersongError(f"There is no function {name!r} in {where}; give the name of one that takes no arguments.")
    return make()


def _files(where: str) -> dict[str, Path]:
    """Name -> place of the file, or of the package's; parents are looked up and not imported."""
    if where.endswith(".py"):
        if not Path(where).is_file():
            raise UndersongError(f"There is no file {where}; give its path from the working directory.")
        return {Path(where).name: Path(where)}
    parts = where.split(".")
    top, path = None, None
    for name in (".".join(parts[: depth + 1]) for depth in range(len(parts))):
        found = _spec(name, path)
        if found is None or not (found.has_location or found.submodule_search_locations):
            raise UndersongError(f"There is no module {name} with a source; install it, or give the path of its file.")
        top, path = top or found, list(found.submodule_search_locations or ())
    assert top is not None
    if top.submodule_search_locations is None:
        return {top.name: Path(str(top.origin))}
    roots = [Path(root) for root in top.submodule_search_locations]
    return {file.relative_to(root).as_posix(): file for root in roots for file in root.rglob("*.py")}


def _spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    """What an import would find, parents not imported; without a `path` inside a plain module there is nothing."""
    if path == []:
        return None
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((found for finder in finders if (found := finder.find_spec(name, path))), None)


def _module_of(where: str, version: str) -> Any:
    """A file as a module of its own: changed and loaded again, it is another."""
    name = f"undersong_own_{Path(where).stem}_{version[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(where).resolve())
        assert spec is not None
        assert spec.loader is not None
        with ExitStack() as undo:  # a module that stops half-way is none
            undo.callback(sys.modules.pop, name, None)
            sys.modules[name] = importlib.util.module_from_spec(spec)  # before it runs: dataclasses look themselves up
            spec.loader.exec_module(sys.modules[name])
            undo.pop_all()
    return sys.modules[name]


def _imported(where: str, version: str) -> Any:
    """A module, which Python imports once: changed since, it would be filed under what it is not."""
    if _versions.setdefault(where, version) != version:
        raise UndersongError(f"The source of {where} has changed since it was imported; start Python anew.")
    return importlib.import_module(where)


_versions: dict[str, str] = {}  # module -> hash of its source when this process imported it
