"""Names and shapes of a checkpoint's tensors, read from the headers of its safetensors files.

No weight is read or fetched: of a file on the hub, only the header is requested (HTTP range).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.checkpoint_files import COPY_AGAIN
from undersong.models.hub_files import hub_errors
from undersong.types import UndersongError

WEIGHTS_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
PARALLEL_REQUESTS = 8  # Kimi-Audio has 36 shards

Shapes = dict[str, tuple[int, ...]]


class HeadersUnreachableError(UndersongError):
    """The headers of a checkpoint that is neither here nor on a hub that answers: nothing is known of its tensors."""


def read_shapes(source: str | Path, ref: str, options: Mapping[str, Any], subfolder: str = "") -> Shapes:
    """Map the names of a checkpoint's tensors to their shapes.

    Args:
        source: Folder or Hugging Face id.
        ref: Name of the checkpoint in errors.
        options: Options for the hub: revision.
        subfolder: Folder of the weights in the checkpoint.

    Raises:
        UndersongError: No weights, a shard that is missing, or a damaged header or index.
        HeadersUnreachableError: A hub id without a network, whose weights are not in the hub's cache.
    """
    if file := _find_file(source, ref, options, _join(subfolder, WEIGHTS_FILE)):
        return read_file_shapes(source, ref, options, file)
    index = _find_file(source, ref, options, _join(subfolder, INDEX_FILE))
    if index is None:
        place = f"{subfolder}/ of {ref}" if subfolder else ref
        raise UndersongError(
            f"There is neither {WEIGHTS_FILE} nor {INDEX_FILE} in {place}; give a complete checkpoint."
        )
    shards = [_join(subfolder, shard) for shard in _read_index(_local_path(source, options, index, ref), ref)]
    with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
        parts = list(pool.map(lambda shard: read_file_shapes(source, ref, options, shard), shards))
    return {name: shape for part in parts for name, shape in part.items()}


def read_file_shapes(source: str | Path, ref: str, options: Mapping[str, Any], file: str) -> Shapes:
    """Map the names of one file's tensors to their shapes. Arguments and errors are those of `read_shapes`."""
    from huggingface_hub import parse_safetensors_file_metadata
    from huggingface_hub.errors import EntryNotFoundError, SafetensorsParsingError

    path = path_on_disk(source, options, file)
    if path is not None:
        return _read_local_shapes(path, ref, file)
    if Path(source).is_dir():
        raise _missing_error(file, ref)
    try:
        metadata = parse_safetensors_file_metadata(str(source), file, revision=options.get("revision"))
    except EntryNotFoundError as error:
        raise _missing_error(file, ref) from error
    except SafetensorsParsingError as error:
        raise _damaged_error(file, ref, error) from error
    except hub_errors() as error:
        raise _unreachable_error(file, ref, error) from error
    return {name: tuple(tensor.shape) for name, tensor in metadata.tensors.items()}


def _read_local_shapes(path: Path, ref: str, file: str) -> Shapes:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as tensors:  # the file is mapped, and no tensor read
            return {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged_error(file, ref, error) from error


def weights_file(source: str | Path, options: Mapping[str, Any]) -> str:
    """The file, of those on disk, that says what tensors a checkpoint has: its only weights, or their index."""
    on_disk = {name for name in (WEIGHTS_FILE, INDEX_FILE) if path_on_disk(source, options, name)}
    return INDEX_FILE if on_disk == {INDEX_FILE} else WEIGHTS_FILE


def _find_file(source: str | Path, ref: str, options: Mapping[str, Any], file: str) -> str | None:
    """Path in the checkpoint of a file that it has, here or on the hub; None if it has none."""
    from huggingface_hub import file_exists, is_offline_mode

    if path_on_disk(source, options, file) is not None:
        return file
    if Path(source).is_dir():
        return None
    if is_offline_mode():
        if file.endswith(WEIGHTS_FILE):  # its index may be in the cache
            return None
        raise _unreachable_error(file, ref, ConnectionError("the hub's offline mode is on"))
    try:
        return file if file_exists(str(source), file, revision=options.get("revision")) else None
    except hub_errors() as error:
        raise _unreachable_error(file, ref, error) from error


def path_on_disk(source: str | Path, options: Mapping[str, Any], file: str) -> Path | None:
    """The file in a folder, or in the hub's cache; None if it is in neither."""
    from huggingface_hub import try_to_load_from_cache

    if Path(source).is_dir():
        path = Path(source) / file
        return path if path.is_file() else None
    cached = try_to_load_from_cache(str(source), file, revision=options.get("revision"))
    return Path(cached) if isinstance(cached, str) else None


def _local_path(source: str | Path, options: Mapping[str, Any], file: str, ref: str) -> Path:
    """The small file `file`, fetched if it is not here."""
    from huggingface_hub import hf_hub_download

    path = path_on_disk(source, options, file)
    if path is not None:
        return path
    try:
        return Path(hf_hub_download(str(source), file, revision=options.get("revision")))
    except hub_errors() as error:
        raise _unreachable_error(file, ref, error) from error


def _read_index(path: Path, ref: str) -> list[str]:
    """Names of the shards, each once. They are plain names, so that an index leads to no file elsewhere."""
    try:
        names: Iterable[Any] = json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()
        shards = sorted(set(names))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged_error(path.name, ref, error) from error
    for shard in shards:
        if not isinstance(shard, str) or Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise _damaged_error(path.name, ref, ValueError(f"it names {str(shard)[:100]!r} as a shard"))
    return shards


def _join(subfolder: str, name: str) -> str:
    return f"{subfolder}/{name}" if subfolder else name


def _missing_error(file: str, ref: str) -> UndersongError:
    return UndersongError(f"{file} is missing in {ref}; {COPY_AGAIN}.")


def _damaged_error(file: str, ref: str, error: Exception) -> UndersongError:
    return UndersongError(f"{file} of {ref} cannot be read ({describe_error(error)}); {COPY_AGAIN}.")


def _unreachable_error(file: str, ref: str, error: Exception) -> HeadersUnreachableError:
    reason = describe_error(error)
    return HeadersUnreachableError(
        f"The header of {file} of {ref} cannot be fetched ({reason}); check the network, or fetch the model first."
    )
