"""Rank, world size and synchronization under `accelerate launch` and `torchrun`. Imports no torch at import time."""

from __future__ import annotations

import os


def rank() -> int:
    """Index of this process; process 0 writes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_single_process_launch() -> bool:
    """True if `accelerate launch` started only this process, as it always does without GPUs."""
    return world_size() == 1 and "ACCELERATE_DYNAMO_BACKEND" in os.environ


def local_device(device: str) -> str:
    """Device of this process: its own GPU if `device` is `cuda` without a number."""
    return f"{device}:{os.environ.get('LOCAL_RANK', '0')}" if world_size() > 1 and device == "cuda" else device


def wait_for_all() -> None:
    """Wait for the other processes."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def finalize_distributed() -> None:
    """Wait for the other processes and leave the group, at the end of a command.

    A process that simply ends may abort the others. Afterwards no distributed training is possible.
    """
    if world_size() > 1:
        from accelerate import PartialState

        wait_for_all()
        PartialState().destroy_process_group()
