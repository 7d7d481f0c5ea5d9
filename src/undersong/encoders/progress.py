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


@dataclass(slots=True)
class Watch:
    """Counts from its making and tells the watcher, where there is one."""

    total: int
    tell: Watcher | None
    start: float

    def at(self, done: int) -> None:
        if self.tell is not None:
            self.tell(Progress(done, self.total, time.monotonic() - self.start))


def watch(total: int, tell: Watcher | None) -> Watch:
    """A watch that starts now."""
    return Watch(total, tell, time.monotonic())
