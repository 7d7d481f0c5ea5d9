"""Running out of memory, whoever says so, and what to do: half the batch, and on.

Loads no library: torch is asked only where it is loaded already.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

# torch.OutOfMemoryError is a RuntimeError that says the first; the CPU's allocator, cuBLAS and cuDNN say the others.
SAYINGS = ("out of memory", "can't allocate", "alloc_failed", "not enough memory")


def halving(
    run: Callable[[Sequence[Item]], Sequence[Made]], items: Sequence[Item], size: int
) -> Iterator[tuple[list[Item], Sequence[Made] | None]]:
    """Batches of at most `size` items, in order, with what `run` made of each; None: a single item that memory does not
    hold.  What did not fit is tried by halves, and the size stays halved: give items from small to large."""
    waiting = deque(items)
    while waiting:
        batch = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        made = _run(run, batch)
        if made is None and len(batch) > 1:
            size = len(batch) // 2
            waiting.extendleft(reversed(batch))
            continue
        yield batch, made


def _run(run: Callable[[Sequence[Item]], Sequence[Made]], batch: list[Item]) -> Sequence[Made] | None:
    try:
        return run(batch)
    except (RuntimeError, MemoryError) as error:
        if not ran_out(error):
            raise
    # Here, not in the handler: there the error still holds the tensors of the failed pass.
    give_back()
    return None


def ran_out(error: BaseException) -> bool:
    """Whether an error means that there was not memory enough."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(saying in str(error).lower() for saying in SAYINGS)
    )


def give_back() -> None:
    """Returns what the accelerator's allocator keeps for later, so that a smaller batch finds room in one piece."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
