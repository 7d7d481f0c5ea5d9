"""Distance to the nearest harmful item for a whole pool, against nothing but the matrix product it needs.

All run in turn in one process on one thread, so the ratio hardly depends on the machine or its other work.  Prints the
median ratios, beside them those of scikit-learn's brute force and (where it is installed) faiss's exact index, and the
memory held beside the outputs for two pool sizes (it must not grow).
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: the work is to be timed, not the threads

import argparse
import time
import tracemalloc
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np

from undersong.proximity.distances import nearest_distances

POOL, HARM, DIM = 6083, 520, 1280  # the published size: SD-QA against AdvBench, Whisper-large vectors
LARGE = 100_000, 1_459, 384  # a large pool against AdvBench and Do-Not-Answer, MiniLM vectors
FEW, MANY, NARROW = 10_000, 1_000_000, 64


def milliseconds(call: Callable[[], object]) -> float:
    """Processor time of one call: waiting for a core is not the call's cost."""
    start = time.process_time()
    call()
    return (time.process_time() - start) * 1000


def extra_mebibytes(pool: np.ndarray, harm: np.ndarray) -> float:
    """Peak memory allocated during the call, less the arrays it returns."""
    tracemalloc.start()
    result = nearest_distances(pool, harm)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return (peak - sum(getattr(result, name).nbytes for name in result.__slots__)) / 2**20


def brute(pool: np.ndarray, harm: np.ndarray) -> None:
    """scikit-learn's exact search, by cosine."""
    from sklearn.neighbors import NearestNeighbors

    NearestNeighbors(n_neighbors=1, algorithm="brute", metric="cosine", n_jobs=1).fit(harm).kneighbors(pool)


def flat(pool: np.ndarray, harm: np.ndarray) -> None:
    """faiss's exact index of inner products, on vectors scaled to length 1."""
    import faiss

    faiss.omp_set_num_threads(1)
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (pool, harm)]
    index = faiss.IndexFlatIP(pool.shape[1])
    index.add(unit[1])
    index.search(unit[0], 1)


def ratios(
    shape: tuple[int, int, int], common: float, rounds: int, others: bool = False
) -> tuple[float, float, dict[str, float]]:
    """Vectors about a `common` mean -> median ms of the bare product and of ours, and the ratios to the bare one."""
    rng = np.random.default_rng(0)
    pool, harm = (common + rng.standard_normal((rows, shape[2]), dtype=np.float32) for rows in shape[:2])
    calls: dict[str, Callable[[], object]] = {
        "bare": lambda: pool @ harm.T,
        "ours": lambda: nearest_distances(pool, harm, k=1),
        "with the 5 nearest": lambda: nearest_distances(pool, harm),
    }
    if others:
        calls["scikit-learn"] = lambda: brute(pool, harm)
        if find_spec("faiss"):
            calls["faiss"] = lambda: flat(pool, harm)
    times = np.array([[milliseconds(call) for call in calls.values()] for _ in range(rounds + 1)])[1:]  # one warms up
    found = np.median(times[:, 1:] / times[:, :1], axis=0)
    bare, ours = np.median(times[:, :2], axis=0)
    return bare, ours, dict(zip(list(calls)[1:], found.tolist()))


def said(name: str, found: tuple[float, float, dict[str, float]]) -> str:
    bare, ours, others = found
    more = ", ".join(f"{call} {ratio:.2f}x" for call, ratio in others.items() if call != "ours")
    return f"{name} {others['ours']:.2f}x ({ours:.0f} / {bare:.0f} ms), {more}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = max(5, parser.parse_args().rounds)
    # Nearly all of a Whisper-class vector is one mean, and distances then need more care than scattered ones.
    small, large = (POOL, HARM, DIM), LARGE
    for shape, times in ((small, rounds), (large, 5)):
        shown = [said("scattered", ratios(shape, 0.0, times, others=True))]
        shown.append(said("about a common mean", ratios(shape, 10.0, times)))
        size = "x".join(map(str, shape))
        print(f"nearest {size} against a bare float32 product, median of {times}: {'; '.join(shown)}", flush=True)
    few, many = (
        extra_mebibytes(1 + np.zeros((n, NARROW), np.float32), 10 + np.eye(HARM, NARROW, dtype=np.float32))
        for n in (FEW, MANY)
    )
    print(f"memory beside its outputs: {many:.1f} MiB at {MANY} rows, {many / few:.2f}x of that at {FEW}")


if __name__ == "__main__":
    main()
