"""User code named as FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION: finding, hashing and loading it."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from contextlib import ExitStack
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from undersong.store.hashing import hash_file
from undersong.types import UndersongError


def split_code_ref(ref: str) -> tuple[str, str]:
    """Split a reference to (file or module, function name). Raises UndersongError for any other form."""
    source, _, name = ref.rpartition(":")
    module = all(part.isidentifier() for part in source.split("."))
    if not name.isidentifier() or not (source.endswith(".py") or module):
        raise UndersongError(f"{ref!r} names no code; write FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.")
    return source, name


def code_hash(ref: str) -> str:
    """SHA-256 of the source: of the file, or of all .py files of the package that contains the module.

    Code that it imports from elsewhere, and files that it reads, are not hashed; a constant in the source can stand for
    them.
    """
    digest = hashlib.sha256()
    for name, file in sorted(_source_files(split_code_ref(ref)[0]).items()):
        digest.update(f"{name}\0{hash_file(file)}\n".encode())
    return digest.hexdigest()


def load_code(ref: str) -> Any:
    """Call the named function without arguments and return its result. Its errors pass through."""
    source, name = split_code_ref(ref)
    module = (_load_file_module if source.endswith(".py") else _import_unchanged)(source, code_hash(ref))
    factory = getattr(module, name, None)
    if not callable(factory):
        raise UndersongError(
            f"There is no function {name!r} in {source}; give the name of one that takes no arguments."
        )
    return factory()


def _source_files(source: str) -> dict[str, Path]:
    """Name -> path of the file, or of all files of the package; parents are not imported."""
    if source.endswith(".py"):
        if not Path(source).exists():
            raise UndersongError(f"There is no file {source}; give its path from the working directory.")
        return {Path(source).name: Path(source)}
    parts = source.split(".")
    top_spec, path = None, None
    for name in (".".join(parts[: depth + 1]) for depth in range(len(parts))):
        spec = _find_spec(name, path)
        if spec is None or not (spec.has_location or spec.submodule_search_locations):
            raise UndersongError(f"There is no module {name} with a source; install it, or give the path of its file.")
        top_spec, path = top_spec or spec, list(spec.submodule_search_locations or ())
    assert top_spec is not None
    if top_spec.submodule_search_locations is None:
        return {top_spec.name: Path(str(top_spec.origin))}
    roots = [Path(root) for root in top_spec.submodule_search_locations]
    return {file.relative_to(root).as_posix(): file for root in roots for file in root.rglob("*.py")}


def _find_spec(name: str, path: list[str] | None) -> ModuleSpec | None:
    """Spec that an import would find, without importing parents; None inside a plain module."""
    if path == []:
        return None
    finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
    return next((spec for finder in finders if (spec := finder.find_spec(name, path))), None)


def _load_file_module(source: str, version: str) -> Any:
    """Load a file as a separate module; a changed file becomes another module."""
    name = f"undersong_own_{Path(source).stem}_{version[:16]}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(source).resolve())
        assert spec is not None
        assert spec.loader is not None
        with ExitStack() as undo:  # drop a module that fails half-way
            undo.callback(sys.modules.pop, name, None)
            sys.modules[name] = importlib.util.module_from_spec(spec)  # before it runs: dataclasses look themselves up
            spec.loader.exec_module(sys.modules[name])
            undo.pop_all()
    return sys.modules[name]


def _import_unchanged(source: str, version: str) -> Any:
    """Import a module. Python imports it only once, so an edited source would be filed under the wrong hash."""
    if _imported_hashes.setdefault(source, version) != version:
        raise UndersongError(f"The source of {source} has changed since it was imported; restart Python.")
    return importlib.import_module(source)


_imported_hashes: dict[str, str] = {}  # module -> hash of its source when this process imported it
