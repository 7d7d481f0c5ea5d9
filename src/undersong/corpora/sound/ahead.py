"""A function of items in threads, ahead of whoever reads, in order and in bounded memory.  Knows no audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 4  # libsndfile, soxr and hashing work outside the interpreter's lock
Item = TypeVar("Item")
Made = TypeVar("Made")


def in_order(
    make: Callable[[Item], Made], items: Iterable[Item], room: Callable[[], int], threads: int = THREADS
) -> Iterator[Made]:
    """What `make` gives for each item, in the items' order; at most `room()` wait, which is asked at every item."""
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(make, item))
                while len(waiting) > room():
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # whoever stops reading does not wait for the rest
            for future in waiting:
                future.cancel()
