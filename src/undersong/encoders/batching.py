"""Passes over many items: progress reports, and batches that are halved when memory runs out.

Imports no library; evaluation uses it too.
"""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` items after `seconds`; items left out count as done."""

    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Items per second since the start; 0 before the first."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds to the end at the current rate; None before the first item."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


ProgressCallback = Callable[[Progress], None]
REPORT_INTERVAL = 10.0  # seconds between two lines


def progress_lines(task: str, write_line: Callable[[str], None]) -> ProgressCallback:
    """Callback that writes the progress of `task` as a line, at most once in REPORT_INTERVAL seconds."""
    last_report = 0.0

    def report(progress: Progress) -> None:
        nonlocal last_report
        if progress.seconds - last_report < REPORT_INTERVAL:
            return
        last_report = progress.seconds
        remaining = (
            "" if progress.remaining_seconds is None else f", {format_duration(progress.remaining_seconds)} left"
        )
        write_line(f"{task}: {progress.done:,} of {progress.total:,}, {progress.rate:.3g} a second{remaining}")

    return report


def format_duration(seconds: float) -> str:
    """Format seconds in the two largest units: 42 s, 3 min 20 s, 5 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass(slots=True)
class ProgressTimer:
    """Measures time from its creation and reports progress to the callback, if there is one."""

    total: int
    callback: ProgressCallback | None
    start: float

    def update(self, done: int) -> None:
        """Report `done` items since the start (not since the last call)."""
        if self.callback is not None:
            self.callback(Progress(done, self.total, time.monotonic() - self.start))


def start_progress(total: int, callback: ProgressCallback | None) -> ProgressTimer:
    """Start a timer now."""
    return ProgressTimer(total, callback, time.monotonic())


Item = TypeVar("Item")
Result = TypeVar("Result")

# torch.OutOfMemoryError is a RuntimeError with the first message; the CPU allocator, cuBLAS and cuDNN use the others.
OOM_MESSAGES = ("out of memory", "can't allocate", "alloc_failed", "not enough memory")


def halve_on_oom(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> Iterator[tuple[list[Item], Sequence[Result] | None]]:
    """Yield batches of at most `size` items, in order, with the results of `run`; None for one item that does not fit.

    A batch that runs out of memory is tried in halves, and the size stays halved, so sort items from small to large.
    """
    pending = deque(items)
    while pending:
        batch = [pending.popleft() for _ in range(min(size, len(pending)))]
        results = _run_or_none(run, batch)
        if results is None and len(batch) > 1:
            size = len(batch) // 2
            pending.extendleft(reversed(batch))
            continue
        yield batch, results


def _run_or_none(run: Callable[[Sequence[Item]], Sequence[Result]], batch: list[Item]) -> Sequence[Result] | None:
    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if not is_oom_error(error):
            raise
    # Not in the handler, where the error still holds the tensors of the failed pass.
    empty_cache()
    return None


def is_oom_error(error: BaseException) -> bool:
    """True if an error means that memory ran out."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error).lower() for message in OOM_MESSAGES)
    )


def empty_cache() -> None:
    """Free the cached memory of the accelerator, so that a smaller batch finds room in one piece."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
