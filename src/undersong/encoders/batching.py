"""Progress reports of a pass over many items. Imports no library; evaluation uses it too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a pass: `done` of `total` items after `seconds`. Items that were left out count as done."""

    done: int
    total: int
    seconds: float
    note: str = ""  # what else is known by now, such as the loss of a training

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


def watch_progress(task: str, say: Callable[[str], None] | None) -> ProgressCallback | None:
    """Callback for the progress of `task`: a bar where `say` draws them (it has a `watch`), else lines.

    None if `say` is None.
    """
    if say is None:
        return None
    watch: Callable[[str], ProgressCallback] | None = getattr(say, "watch", None)
    return progress_lines(task, say) if watch is None else watch(task)


def progress_lines(task: str, write_line: Callable[[str], None]) -> ProgressCallback:
    """Callback that writes the progress of `task` as a line, at most once in REPORT_INTERVAL seconds."""
    last_report = 0.0

    def report(progress: Progress) -> None:
        nonlocal last_report
        if progress.seconds < last_report:  # a further pass of the same task, which has a clock of its own
            last_report = 0.0
        if progress.seconds - last_report < REPORT_INTERVAL:
            return
        last_report = progress.seconds
        remaining = (
            "" if progress.remaining_seconds is None else f", {format_duration(progress.remaining_seconds)} left"
        )
        note = f", {progress.note}" if progress.note else ""
        write_line(f"{task}: {progress.done:,} of {progress.total:,}, {progress.rate:.3g} a second{remaining}{note}")

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

    def update(self, done: int, note: str = "") -> None:
        """Report `done` items since the start (not since the last call), and a note on them."""
        if self.callback is not None:
            self.callback(Progress(done, self.total, time.monotonic() - self.start, note))


def start_progress(total: int, callback: ProgressCallback | None) -> ProgressTimer:
    """Start a timer now."""
    return ProgressTimer(total, callback, time.monotonic())


@contextmanager
def watch_worker(worker: Any, callback: ProgressCallback | None) -> Iterator[None]:
    """Report the progress of a model or judge inside the context; no effect on those that do not count what they do.

    A worker that counts has an attribute `on_progress`, or its client or its model has.
    """
    parts = (worker, getattr(worker, "client", None), getattr(worker, "model", None))
    counting = next((part for part in parts if hasattr(part, "on_progress")), None)
    if counting is None:
        yield
        return
    counting.on_progress = callback
    try:
        yield
    finally:
        counting.on_progress = None
