"""Rank, world size and synchronization under `accelerate launch` and `torchrun`. Imports no torch at import time."""

from __future__ import annotations

import os


def rank() -> int:
    """Which of the processes this is; 0 writes."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_single_process_launch() -> bool:
    """Whether `accelerate launch` started this process alone, as it does without GPUs, whatever it is told."""
    return world_size() == 1 and "ACCELERATE_DYNAMO_BACKEND" in os.environ


def local_device(device: str) -> str:
    """The device of this process: of GPUs that no number was given for, its own."""
    return f"{device}:{os.environ.get('LOCAL_RANK', '0')}" if world_size() > 1 and device == "cuda" else device


def wait_for_all() -> None:
    """Waits for the others."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def finalize_distributed() -> None:
    """Waits for the others and leaves them, at a command's end: a process that merely ends may abort its peers.

    There is no training together after it.
    """
    if world_size() > 1:
        from accelerate import PartialState

        wait_for_all()
        PartialState().destroy_process_group()
