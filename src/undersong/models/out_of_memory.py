"""What to do when memory runs out: batches that are halved, and cached memory that is given back.

Imports no library; encoders and judges use it too.
"""

from __future__ import annotations

import gc
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# torch.OutOfMemoryError is a RuntimeError with the first message; the CPU allocator, cuBLAS and cuDNN use the others.
OOM_MESSAGES = ("out of memory", "can't allocate", "alloc_failed", "not enough memory")


def halve_on_oom(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int, first_size: int | None = None
) -> Iterator[tuple[list[Item], Sequence[Result] | None]]:
    """Yield batches of at most `size` items, in order, with the results of `run`; None for one item that does not fit.

    A batch that runs out of memory is tried in halves, and the size stays halved, so sort items from small to large.
    The first batch has at most `first_size` items; None: it is like the others.
    """
    pending = deque(items)
    limit = size if first_size is None else min(size, first_size)
    while pending:
        batch = [pending.popleft() for _ in range(min(limit, len(pending)))]
        results = _run_or_none(run, batch)
        if results is None and len(batch) > 1:
            size = limit = len(batch) // 2
            pending.extendleft(reversed(batch))
            continue
        yield batch, results
        limit = size


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


def release_memory() -> None:
    """Free models that are no longer used, and the accelerator's memory that PyTorch keeps cached for them."""
    gc.collect()
    empty_cache()
