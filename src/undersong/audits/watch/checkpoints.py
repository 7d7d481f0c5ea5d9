"""Checkpoints in the output folder of any trainer: which there are, whether one is complete, and whether it changed.

The Trainer of transformers writes `checkpoint-STEP`, and so do TRL, LLaMA-Factory and axolotl. ms-swift and searches
over hyper-parameters put these folders into one folder per run. A checkpoint is an adapter of PEFT or a whole model.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from undersong.regular_files import is_regular_file

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")  # not ms-swift's `checkpoint-100-merged`, a copy of `checkpoint-100`
ADAPTER_CONFIG, MODEL_CONFIG = "adapter_config.json", "config.json"
ADAPTER_WEIGHTS, MODEL_WEIGHTS = "adapter_model.safetensors", "model.safetensors"
MODEL_INDEX = "model.safetensors.index.json"
# Without the optimizer and the trainer's notes, which nobody reads here
MODEL_FILES = ("*.safetensors", "*config.json", "*.index.json", "tokenizer*.json", "*.jinja", "*.model")
HEADER_SIZE_BYTES = 8  # of a safetensors file: a little-endian integer before the header
MAX_HEADER_SIZE = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class TrainerCheckpoint:
    """A checkpoint folder; `name` is its path in the output folder: RUN/checkpoint-STEP, or without RUN."""

    name: str
    path: Path
    step: int

    @property
    def is_adapter(self) -> bool:
        """True for a PEFT folder, False for a whole model."""
        return (self.path / ADAPTER_CONFIG).is_file()


def list_checkpoints(output: Path) -> list[TrainerCheckpoint]:
    """List the checkpoints of a training in order of step.

    If there are none in the folder itself, they are those of the newest run one level below: the last by the numbers
    in its name (ms-swift counts `v0-…`, `v1-…`).
    """
    for pattern in ("checkpoint-*", "*/checkpoint-*"):
        checkpoints = [
            TrainerCheckpoint(path.relative_to(output).as_posix(), path, int(match[1]))
            for path in output.glob(pattern)
            if (match := CHECKPOINT_NAME.fullmatch(path.name)) and path.is_dir()
        ]
        if checkpoints:
            newest = max((run_of(checkpoint.name) for checkpoint in checkpoints), key=_run_order)
            of_newest = [checkpoint for checkpoint in checkpoints if run_of(checkpoint.name) == newest]
            return sorted(of_newest, key=lambda checkpoint: checkpoint.step)
    return []


def run_of(name: str) -> str:
    """Name of the run that a checkpoint belongs to; empty if it lies in the output folder itself."""
    return name.rpartition("/")[0]


def _run_order(run: str) -> list[tuple[bool, int, str]]:
    """Parts of a run's name, digits as numbers, so that v10 follows v9."""
    return [(part.isdigit(), int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", run)]


def file_signature(folder: Path) -> str:
    """Digest of names, sizes and times of change of a checkpoint's files; empty if the folder is gone.

    It reads no weights, so it is cheap to compute again and again.
    """
    entries = []
    for file in sorted({path for pattern in MODEL_FILES for path in folder.glob(pattern)}):
        try:
            status = file.stat()
        except FileNotFoundError:  # deleted meanwhile
            continue
        entries.append(f"{file.name}\0{status.st_size}\0{status.st_mtime_ns}\n")
    return hashlib.sha256("".join(entries).encode()).hexdigest() if entries else ""


def missing_part(folder: Path) -> str | None:
    """Say what a checkpoint lacks to be read; None if its config and its weights are complete.

    A safetensors file says in its header how long it is, so a file that is still being written is known by its size.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        config, weights = ADAPTER_CONFIG, [ADAPTER_WEIGHTS]
    elif (folder / MODEL_CONFIG).is_file():
        config = MODEL_CONFIG
        weights = [MODEL_WEIGHTS] if (folder / MODEL_WEIGHTS).is_file() else list(_shards(folder))
    else:
        return f"neither {ADAPTER_CONFIG} nor {MODEL_CONFIG} is there"
    if _read_json(folder / config) is None:
        return f"{config} is not complete"
    if not weights:
        return f"neither {MODEL_WEIGHTS} nor a whole {MODEL_INDEX} is there"
    return next((reason for name in weights if (reason := _missing_weights(folder / name))), None)


def _shards(folder: Path) -> Iterator[str]:
    index = _read_json(folder / MODEL_INDEX)
    weight_map = index.get("weight_map") if index is not None else None
    if isinstance(weight_map, dict):
        yield from sorted({Path(str(name)).name for name in weight_map.values()})


def _missing_weights(file: Path) -> str | None:
    """Compare the size of a safetensors file with its header."""
    if file.exists() and not is_regular_file(file):
        return f"{file.name} is no regular file"
    try:
        with file.open("rb") as stream:
            header_size = int.from_bytes(stream.read(HEADER_SIZE_BYTES), "little")
            header = stream.read(header_size) if header_size <= MAX_HEADER_SIZE else b""
        tensors = json.loads(header)
        ends = [tensor["data_offsets"][1] for name, tensor in tensors.items() if name != "__metadata__"]
        expected_size = HEADER_SIZE_BYTES + header_size + max(ends, default=0)
        size = file.stat().st_size
    except FileNotFoundError:
        return f"there is no {file.name}"
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return f"the header of {file.name} is not complete"
    return None if size == expected_size else f"{file.name} has {size:,} of {expected_size:,} bytes"


def _read_json(file: Path) -> dict[str, object] | None:
    if not is_regular_file(file):
        return None
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
