"""How far a pass over many items is: how fast it goes and when it ends.  Knows a clock, not what is done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` items after `seconds`; items left out count as done."""

    done: int
    total: int
    seconds: float

    @property
    def rate(self) -> float:
        """Items a second since the start; 0 before the first."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def remaining_seconds(self) -> float | None:
        """Seconds to the end at that rate; None while nothing is known."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


ProgressCallback = Callable[[Progress], None]
EVERY = 10.0  # seconds between two lines


def progress_lines(task: str, write_line: Callable[[str], None]) -> ProgressCallback:
    """A watcher that tells of `what` in words, at most once in EVERY seconds and not before the first have passed."""
    last_report = 0.0

    def report(progress: Progress) -> None:
        nonlocal last_report
        if progress.seconds - last_report < EVERY:
            return
        last_report = progress.seconds
        remaining = (
            "" if progress.remaining_seconds is None else f", {format_duration(progress.remaining_seconds)} left"
        )
        write_line(f"{task}: {progress.done:,} of {progress.total:,}, {progress.rate:.3g} a second{remaining}")

    return report


def format_duration(seconds: float) -> str:
    """In its two largest units: 42 s, 3 min 20 s, 5 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass(slots=True)
class ProgressTimer:
    """Counts from its making and tells the watcher, where there is one."""

    total: int
    callback: ProgressCallback | None
    start: float

    def update(self, done: int) -> None:
        """Tells how far it is: `done` items since the start, not since the last call."""
        if self.callback is not None:
            self.callback(Progress(done, self.total, time.monotonic() - self.start))


def start_progress(total: int, callback: ProgressCallback | None) -> ProgressTimer:
    """A watch that starts now."""
    return ProgressTimer(total, callback, time.monotonic())
