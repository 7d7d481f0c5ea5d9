"""Two workers of Ray against two plain processes on the same shards; exact distances from 10 k to 1 M rows.

The rate is that of the middle three fifths of the shards, by the times of their files.  Starting up is told apart: what
is worth a cluster pays it once.  Needs the extra `scale` for the first; says so where it is missing.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: two workers, two threads

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

from undersong.corpora.manifest import write_manifest
from undersong.proximity.distances import nearest_distances
from undersong.scale.embedding_shards import embed_shards
from undersong.scale.ray_cluster import SPARE_CPUS, RayWorkers
from undersong.scale.ray_engine import ray_scheduler
from undersong.types import Sample

RATE, FILES, CLIPS, ROWS, ROUNDS, WORKERS = 16_000, 64, 4000, 40, 3, 2
SIZES, HARM, DIM = (10_000, 100_000, 1_000_000), 520, 64
JOB = "import sys; from undersong.scale.embedding_shards import embed_shards; "
JOB += "embed_shards(sys.argv[1], 'logmel', sys.argv[2], rows=int(sys.argv[3]), shard=sys.argv[4])"


def corpus(folder: Path) -> Path:
    """A manifest of clips of 3 to 6 s, in noise; each file stands in it several times."""
    rng = np.random.default_rng(0)
    for number in range(FILES):
        sound = 0.1 * rng.standard_normal(int(RATE * rng.uniform(3, 6)))
        soundfile.write(folder / f"{number}.wav", sound, RATE)
    samples = [Sample(f"c{number}", audio=str(folder / f"{number % FILES}.wav")) for number in range(CLIPS)]
    write_manifest(samples, folder / "pool.jsonl")
    return folder / "pool.jsonl"


def rate(out: Path) -> float:
    """Clips a second while all workers are at work: neither some still starting nor some done already."""
    times = sorted(path.stat().st_mtime for path in out.parent.glob(f"{out.name}.*.partial/rows-*.parquet"))
    first, last = len(times) // 5, 4 * len(times) // 5
    return ROWS * (last - first) / (times[last] - times[first])


def by_processes(pool: Path, out: Path) -> None:
    # Sessions of their own, as Ray's workers have: on a busy machine Linux shares the processor out by session.
    command = [sys.executable, "-c", JOB, str(pool), str(out), str(ROWS)]
    jobs = [subprocess.Popen([*command, f"{i + 1}/{WORKERS}"], start_new_session=True) for i in range(WORKERS)]
    codes = [job.wait() for job in jobs]
    if any(codes):
        raise SystemExit("a plain process failed")


def workers() -> None:
    try:
        import ray
        import ray.data
    except ImportError:
        print("scale: Ray is not installed (extra `scale`): two workers not compared with two processes")
        return
    rates, whole = [], []
    with tempfile.TemporaryDirectory() as scratch:
        pool = corpus(Path(scratch))
        start = time.monotonic()
        ray.init(
            "local", num_cpus=WORKERS + SPARE_CPUS, include_dashboard=False, log_to_driver=False,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1"}},
        )  # fmt: skip
        started = time.monotonic() - start
        for number in range(ROUNDS):
            outs = [Path(scratch) / f"{engine}{number}" for engine in ("plain", "ray")]
            times = [time.monotonic()]
            by_processes(pool, outs[0])
            times.append(time.monotonic())
            embed_shards(pool, "logmel", outs[1], rows=ROWS, shard="1/1", scheduler=ray_scheduler(RayWorkers(WORKERS)))
            times.append(time.monotonic())
            rates.append([rate(out) for out in outs])
            for out in outs:
                embed_shards(pool, "logmel", out, rows=ROWS)
            same = [sorted((p.name, p.read_bytes()) for p in out.glob("embeddings-*")) for out in outs]
            if same[0] != same[1]:
                raise SystemExit("the engines made different files")
            whole.append(np.diff(times))
        ray.shutdown()
    ratios = [fast / plain for plain, fast in rates]
    plain, on_ray = np.median(rates, axis=0)
    seconds = np.median(whole, axis=0)
    print(
        f"scale: {WORKERS} Ray workers {statistics.median(ratios):.2f}x the rate of {WORKERS} plain processes, the "
        f"same files (of {ROUNDS}: {min(ratios):.2f}-{max(ratios):.2f}; {on_ray:.0f} against {plain:.0f} clips/s; "
        f"with their start {seconds[1]:.0f} against {seconds[0]:.0f} s for {CLIPS} clips; Ray itself {started:.0f} s)"
    )


def growth() -> None:
    rng = np.random.default_rng(0)
    harm, spent = rng.standard_normal((HARM, DIM), dtype=np.float32), []
    nearest_distances(rng.standard_normal((SIZES[0], DIM), dtype=np.float32), harm)  # warms up
    for rows in SIZES:
        pool = rng.standard_normal((rows, DIM), dtype=np.float32)
        times = []
        for _ in range(max(1, SIZES[1] // rows)):
            start = time.process_time()
            nearest_distances(pool, harm)
            times.append(time.process_time() - start)
        spent.append(statistics.median(times))
    exponent = np.polyfit(np.log(SIZES), np.log(spent), 1)[0]
    shown = ", ".join(f"{seconds:.2f} s for {rows:,}" for seconds, rows in zip(spent, SIZES))
    print(f"scale: exact distances to {HARM} harm items in {DIM} dimensions: {shown} rows, exponent {exponent:.2f}")


def main() -> None:
    growth()
    workers()


if __name__ == "__main__":
    main()
