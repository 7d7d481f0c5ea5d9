"""Distance to the nearest harmful item for a whole pool, against nothing but the matrix product it needs.

Both run in turn in one process on one thread, so the ratio hardly depends on the machine or its other work.  Prints one
line: the median ratios, and the memory held beside the outputs for two pool sizes (it must not grow).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: the work is to be timed, not the threads

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np

from undersong.proximity import nearest

POOL, HARM, DIM = 6083, 520, 1280  # the published size: SD-QA against AdvBench, Whisper-large vectors


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of one call: waiting for a core is not the call's cost."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1000


def extra_mebibytes(pool: np.ndarray, harm: np.ndarray) -> float:
    """Peak memory allocated during the call, less the arrays it returns."""
    tracemalloc.start()
    result = nearest(pool, harm)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak - sum(getattr(result, name).nbytes for name in result.__slots__)) / 2**20


def ratios(common: float, rounds: int) -> tuple[float, float, float, float]:
    """Vectors about a `common` mean -> median ms of the bare product and of ours, their ratio, and with 5 nearest."""
    rng = np.random.default_rng(0)
    pool, harm = (common + rng.standard_normal((rows, DIM), dtype=np.float32) for rows in (POOL, HARM))
    calls = (lambda: pool @ harm.T, lambda: nearest(pool, harm, k=1), lambda: nearest(pool, harm))
    times = np.array([[milliseconds(call) for call in calls] for _ in range(rounds + 1)])[1:]  # the first warms up
    bare, ours, _ = np.median(times, axis=0)
    ratio, with_knn = np.median(times[:, 1:] / times[:, :1], axis=0)
    return bare, ours, ratio, with_knn


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = max(5, parser.parse_args().rounds)
    # Nearly all of a Whisper-class vector is one mean, and distances then need more care than scattered ones.
    shown = []
    for name, common in (("scattered", 0.0), ("about a common mean", 10.0)):
        bare, ours, ratio, with_knn = ratios(common, rounds)
        shown.append(f"{name} {ratio:.2f}x ({ours:.0f} / {bare:.0f} ms), {with_knn:.2f}x with the 5 nearest")
    whole, half = (
        extra_mebibytes(1 + np.zeros((n, DIM), np.float32), 10 + np.eye(HARM, DIM, dtype=np.float32))
        for n in (POOL, POOL // 2)
    )
    print(
        f"nearest {POOL}x{HARM}x{DIM} against a bare float32 product, median of {rounds}: {'; '.join(shown)}; "
        f"{whole:.1f} MiB beside its outputs, {half:.1f} at half the pool (all distances: {POOL * HARM / 2**18:.1f})"
    )


if __name__ == "__main__":
    main()
