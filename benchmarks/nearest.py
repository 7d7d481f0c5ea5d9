"""Nearest harmful item for a whole pool, against nothing but the matrix product it needs.

Both run in turn in one process on one thread, so the ratio does not depend on the machine or its neighbours.
Prints one line: the median ratio, and the memory held beside the outputs for two pool sizes (it must not grow).
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: a thread pool of BLAS would be timed instead

import argparse
import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from undersong.proximity.distances import nearest

POOL, HARM, DIM = 6083, 520, 1280  # the published size: SD-QA against AdvBench, Whisper-large vectors


def seconds(call: Callable[[], object]) -> float:
    """Processor seconds of one call: waiting for another process's core is nobody's cost here."""
    start = time.process_time()
    call()
    return time.process_time() - start


def extra_mebibytes(pool: np.ndarray, harm: np.ndarray) -> float:
    """Peak memory allocated during the call, less the arrays it returns."""
    tracemalloc.start()
    result = nearest(pool, harm)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    outputs = sum(getattr(result, name).nbytes for name in result.__slots__)
    return (peak - outputs) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    pool = rng.standard_normal((POOL, DIM), dtype=np.float32) + np.float32(1)
    harm = rng.standard_normal((HARM, DIM), dtype=np.float32) + np.float32(1)
    pairs = [(seconds(lambda: pool @ harm.T), seconds(lambda: nearest(pool, harm))) for _ in range(rounds + 1)][1:]
    ratio = statistics.median(ours / bare for bare, ours in pairs)
    bare, ours = (statistics.median(times) * 1000 for times in zip(*pairs))
    whole, half = extra_mebibytes(pool, harm), extra_mebibytes(pool[: POOL // 2], harm)
    print(
        f"nearest {POOL}x{HARM}x{DIM}: {ratio:.2f}x a bare float32 product "
        f"(median of {rounds}: {ours:.0f} ms / {bare:.0f} ms), {whole:.1f} MiB beside its outputs, {half:.1f} MiB "
        f"at half the pool (all distances would take {POOL * HARM * 4 / 2**20:.1f} MiB)"
    )


if __name__ == "__main__":
    main()
