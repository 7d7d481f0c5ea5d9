"""A function of items in threads, ahead of whoever reads, in order and in bounded memory.  Knows no audio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

THREADS = 4  # libsndfile, soxr and hashing work outside the interpreter's lock
Item = TypeVar("Item")
Result = TypeVar("Result")


def threaded_map(
    function: Callable[[Item], Result], items: Iterable[Item], max_pending: Callable[[], int], threads: int = THREADS
) -> Iterator[Result]:
    """What `make` gives for each item, in the items' order; at most `room()` wait, which is asked at every item."""
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                while len(pending) > max_pending():
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # whoever stops reading does not wait for the rest
            for future in pending:
                future.cancel()
