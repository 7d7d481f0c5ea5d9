"""The one door through which checkpoints are read with transformers: regular files only, none of the checkpoint's own
code, no question on the terminal, and no list of tensor names on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.checkpoint_files import check_json_files
from undersong.models.hub_files import find_file
from undersong.regular_files import is_regular_file
from undersong.types import UndersongError

CONFIG_FILES = (
    "config.json", "preprocessor_config.json", "processor_config.json", "tokenizer_config.json",
    "generation_config.json",
)  # fmt: skip

# How weights are loaded: from safetensors alone, and without kernels of the Hugging Face Hub. Those are code, which
# transformers downloads and runs by default since 5.25.
SAFE_LOADING: dict[str, Any] = {"use_safetensors": True, "use_kernels": False}


def load_pretrained(
    load: Callable[..., Any],
    source: str | Path,
    ref: str,
    *,
    files: Sequence[str] = ("config.json",),
    **options: Any,
) -> Any:
    """Call a `from_pretrained`, or a constructor that reads a checkpoint, on a folder or a Hugging Face id.

    Args:
        load: The function. It gets `source`, `options` and `trust_remote_code=False`.
        source: Folder or Hugging Face id.
        ref: Name of the checkpoint in errors.
        files: Names of JSON files that `load` reads, if they exist.
        options: Its options, such as revision.

    Raises:
        UndersongError: A file that is no regular file or not a JSON object, a checkpoint that needs its own code, or a
            damaged tokenizer. All other errors of `load` pass.
    """
    check_regular_files(source)
    check_json_files(source, files, ref, options)
    _check_kernels(source, ref)
    try:
        with quiet_transformers():
            return load(str(source), trust_remote_code=False, **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UndersongError(
            f"{ref} needs code of its own ({_code_reference(source, options)}), which is never run; give a checkpoint "
            "of a class that transformers has."
        ) from error
    except Exception as error:
        if type(error) is not Exception:  # the tokenizers library has no narrower class
            raise
        reason = describe_error(error)
        raise UndersongError(
            f"The tokenizer.json of {ref} cannot be read ({reason}); copy it again from the model's release."
        ) from error


def check_regular_files(source: str | Path) -> None:
    """Raise UndersongError for a pipe, socket or device in a checkpoint's folder: opening it might never return."""
    folder = Path(source)
    if not folder.is_dir():
        return
    for path in sorted(folder.rglob("*")):
        if path.exists() and not path.is_dir() and not is_regular_file(path):
            raise UndersongError(
                f"{path.relative_to(folder)} in {folder} is no regular file (a pipe, a socket or a device); replace it "
                "by the checkpoint's own file."
            )


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' reports on loading, which hold names from the file; undersong checks the tensors itself."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def _check_kernels(source: str | Path, ref: str) -> None:
    """Raise UndersongError for a config that names a kernel of the hub (`org/name`), which is code too."""
    config = _read_json(Path(source) / "config.json")
    stack = [config]
    while stack:
        value = stack.pop()
        if not isinstance(value, Mapping):
            continue
        for key, item in value.items():
            if "_implementation" in str(key) and "/" in str(item):
                raise UndersongError(
                    f"{ref} needs code of its own ({key} {str(item)[:100]!r} in config.json), which is never run; "
                    f"remove {key} from the file."
                )
            stack.append(item)


def _code_reference(source: str | Path, options: Mapping[str, Any]) -> str:
    """The first class of an `auto_map`, with its file."""
    for name in CONFIG_FILES:
        path = find_file(source, name, {**options, "local_files_only": True})
        settings = None if path is None else _read_json(path)
        if isinstance(settings, Mapping) and isinstance(code := settings.get("auto_map"), Mapping) and code:
            names = next(iter(code.values()))
            first = next((item for item in names if item), "") if isinstance(names, list) else names
            return f"{str(first)[:100]} in {name}"
    return "an auto_map in its configs"


def _read_json(file: Path) -> Any:
    """Content of a JSON file; None if it is missing or damaged, which loading reports."""
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
    except (OSError, ValueError, RecursionError):
        return None
