"""The small JSON files of a checkpoint, checked before any library reads them, and the errors of libraries in words.

transformers expects objects in all of them, and fails in its own code on a list, a number or an empty file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error, quote
from undersong.models.hub_files import find_file
from undersong.types import UndersongError

COPY_AGAIN = "copy it again from the model's release"
JSON_TYPES = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
EXTRACTOR_FILES = ("processor_config.json", "preprocessor_config.json")  # the first that describes one counts
POSITIVE_SETTINGS = (
    "sampling_rate", "hop_length", "chunk_length", "feature_size", "n_fft", "win_length", "n_samples", "nb_max_frames",
)  # fmt: skip
# What Python itself says of a value of the wrong type, in the code of a library that did not check it.
PYTHON_TEXT = re.compile(
    r"has no attribute|object is not|object does not|argument of type|unsupported operand|must be a mapping|"
    r"positional argument|cannot be interpreted|not subscriptable|expected at most|indices must be|can't multiply|"
    r"not supported between|keyword argument"
)


def read_json_object(file: Path, name: str, ref: str) -> dict[str, Any]:
    """Content of a JSON file, called `name` of `ref` in errors. Raises UndersongError if it is not one object."""
    try:
        text = file.read_text(encoding="utf-8")
        value = json.loads(text) if text.strip() else None
    except (OSError, ValueError, RecursionError) as error:
        raise UndersongError(f"{name} of {ref} is not JSON ({describe_error(error)}); {COPY_AGAIN}.") from error
    if isinstance(value, dict):
        return value
    content = f"holds {JSON_TYPES.get(type(value), 'null')}, not a JSON object" if text.strip() else "is empty"
    raise UndersongError(f"{name} of {ref} {content}; {COPY_AGAIN}.")


def check_json_files(source: str | Path, names: Sequence[str], ref: str, options: Mapping[str, Any]) -> None:
    """Raise UndersongError for a file that is not one JSON object. Files that a checkpoint does not have pass.

    Args:
        source: Folder or Hugging Face id.
        names: Names of the files.
        ref: Name of the checkpoint in errors.
        options: Options of `from_pretrained`.
    """
    for name in names:
        if (file := find_file(source, name, options)) is not None:
            subfolder = options.get("subfolder")
            read_json_object(file, f"{subfolder}/{name}" if subfolder else name, ref)


def check_positive(settings: Mapping[str, Any], keys: Sequence[str], file: str, ref: str) -> None:
    """Raise UndersongError for the first of some settings that is there and is no positive number.

    Args:
        settings: Content of the file.
        keys: Names of the settings.
        file: Name of the file in the error.
        ref: Name of the checkpoint in the error.
    """
    for key in keys:
        value = settings.get(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0):
            raise UndersongError(
                f"{file} of {ref} has the {key} {quote(value)}, which is no positive number; {COPY_AGAIN}."
            )


def check_extractor_settings(source: str | Path, ref: str, options: Mapping[str, Any]) -> None:
    """Check rate, hop, window, mel bands and the like of a feature extractor, as far as its files say them.

    Args:
        source: Folder or Hugging Face id.
        ref: Name of the checkpoint in errors.
        options: Options of `from_pretrained`; a `subfolder` too.

    Raises:
        UndersongError: A file that is not a JSON object, that describes no extractor, or a number that is not positive.
    """
    described, empty = False, ""
    for name in EXTRACTOR_FILES:
        if (file := find_file(source, name, options)) is None:
            continue
        label = f"{options['subfolder']}/{name}" if options.get("subfolder") else name
        settings = read_json_object(file, label, ref)
        if name == "processor_config.json":
            settings = settings.get("feature_extractor", {})
            if not isinstance(settings, dict):
                raise UndersongError(f"The feature_extractor in {label} of {ref} is not a JSON object; {COPY_AGAIN}.")
        if settings:
            described = True
            check_positive(settings, POSITIVE_SETTINGS, label, ref)
        else:
            empty = empty or label
    if empty and not described:
        raise UndersongError(f"{empty} of {ref} describes no feature extractor; {COPY_AGAIN}.")


def values_of(settings: Mapping[str, Any], key: str) -> Iterator[object]:
    """All values of a key in nested JSON objects, the outermost first."""
    level: list[Mapping[str, Any]] = [settings]
    while level:
        yield from (item[key] for item in level if key in item)
        level = [value for item in level for value in item.values() if isinstance(value, Mapping)]


def list_absent(names: Sequence[str]) -> str:
    """Say that none of some files is there."""
    if len(names) == 1:
        return f"there is no {names[0]}"
    if len(names) == 2:
        return f"there is neither {names[0]} nor {names[1]}"
    return f"there is none of {', '.join(names)}"


def describe_loading_error(error: BaseException) -> str:
    """Text of a library's error about a checkpoint's files; in words of ours if Python wrote it."""
    if isinstance(error, KeyError):
        return f"the name {error} is missing or unknown"
    if isinstance(error, ZeroDivisionError):
        return "a number is 0 where none may be"
    if isinstance(error, (TypeError, AttributeError)) and PYTHON_TEXT.search(str(error)):
        return "a value has the wrong type"
    return describe_error(error)
