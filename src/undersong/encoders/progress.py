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
    def left(self) -> float | None:
        """Seconds to the end at that rate; None while nothing is known."""
        return (self.total - self.done) / self.rate if self.rate > 0 else None


Watcher = Callable[[Progress], None]
EVERY = 10.0  # seconds between two lines


def in_lines(what: str, tell: Callable[[str], None]) -> Watcher:
    """A watcher that tells of `what` in words, at most once in EVERY seconds and not before the first have passed."""
    last = 0.0

    def watcher(now: Progress) -> None:
        nonlocal last
        if now.seconds - last < EVERY:
            return
        last = now.seconds
        left = "" if now.left is None else f", {duration(now.left)} left"
        tell(f"{what}: {now.done:,} of {now.total:,}, {now.rate:.3g} a second{left}")

    return watcher


def duration(seconds: float) -> str:
    """In its two largest units: 42 s, 3 min 20 s, 5 h 12 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


@dataclass(slots=True)
class Watch:
    """Counts from its making and tells the watcher, where there is one."""

    total: int
    tell: Watcher | None
    start: float

    def at(self, done: int) -> None:
        """Tells how far it is: `done` items since the start, not since the last call."""
        if self.tell is not None:
            self.tell(Progress(done, self.total, time.monotonic() - self.start))


def watch(total: int, tell: Watcher | None) -> Watch:
    """A watch that starts now."""
    return Watch(total, tell, time.monotonic())
