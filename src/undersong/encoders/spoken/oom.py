"""Running out of memory, whoever says so, and what to do: half the batch, and on.

Loads no library: torch is asked only where it is loaded already.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# torch.OutOfMemoryError is a RuntimeError that says the first; the CPU's allocator, cuBLAS and cuDNN say the others.
OOM_MESSAGES = ("out of memory", "can't allocate", "alloc_failed", "not enough memory")


def halve_on_oom(
    run: Callable[[Sequence[Item]], Sequence[Result]], items: Sequence[Item], size: int
) -> Iterator[tuple[list[Item], Sequence[Result] | None]]:
    """Batches of at most `size` items, in order, with what `run` made of each; None: a single item that memory does not
    hold.  What did not fit is tried by halves, and the size stays halved: give items from small to large."""
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
    # Here, not in the handler: there the error still holds the tensors of the failed pass.
    empty_cache()
    return None


def is_oom_error(error: BaseException) -> bool:
    """Whether an error means that there was not memory enough."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error).lower() for message in OOM_MESSAGES)
    )


def empty_cache() -> None:
    """Returns what the accelerator's allocator keeps for later, so that a smaller batch finds room in one piece."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
