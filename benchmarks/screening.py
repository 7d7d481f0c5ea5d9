"""A screening of 100,000 written items, and of as many spoken ones, and the very same again: the second is a look-up.

Each runs in a process of its own, as a user's would.  Prints both, their ratio, and the memory of the first.  Spoken
items: `--spoken N` (default 10,000, half a second each; 100,000 take 1.6 GB of disk).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROWS, HARM, WORDS, RATE = 100_000, 520, 1_450, 16_000


def write(file: Path, rows: int, seed: int) -> Path:
    """Ten words an item, eleven items a group."""
    rng = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(WORDS)]
    with file.open("w") as out:
        for i in range(rows):
            row = {"id": f"{file.stem}{i}", "text": " ".join(rng.choices(vocabulary, k=10)), "group": f"g{i // 11}"}
            out.write(json.dumps(row) + "\n")
    return file


def speak(file: Path, rows: int, seed: int) -> Path:
    """Half a second of a tone that comes and goes, in a little noise; a file an item."""
    import numpy as np
    import soundfile

    rng, time_axis = np.random.default_rng(seed), np.arange(RATE // 2) / RATE
    with file.open("w") as out:
        for i in range(rows):
            name = f"{file.stem}{i // 1000:03d}/{i}.wav"
            (file.parent / name).parent.mkdir(exist_ok=True)
            tone, swell = (np.sin(2 * np.pi * rng.uniform(*hertz) * time_axis) for hertz in ((200, 1000), (1, 5)))
            soundfile.write(file.parent / name, 0.3 * tone * swell + 0.01 * rng.standard_normal(len(tone)), RATE)
            out.write(json.dumps({"id": f"{file.stem}{i}", "audio": name, "group": f"g{i // 11}"}) + "\n")
    return file


def seconds(folder: Path, out: str, *more: str) -> tuple[float, float]:
    """Wall and processor seconds of one screening."""
    code = "from undersong.cli import main; main()"
    asked = ["screen", "pool.jsonl", "--harm", "harm.jsonl", "--store", "store", "--out", out, *more]
    start, spent = time.monotonic(), os.times()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code, *asked], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    now = os.times()
    cpu = now.children_user + now.children_system - spent.children_user - spent.children_system
    return time.monotonic() - start, cpu


def measured(what: str, make: Callable[[Path, int, int], Path], rows: int, *more: str) -> None:
    import resource

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder / "pool.jsonl", rows, 0)
        make(folder / "harm.jsonl", HARM, 1)
        time.sleep(3)  # files that were just written are not trusted to stay as they are
        cold, cold_cpu = seconds(folder, "first", *more)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        warm, warm_cpu = sorted(seconds(folder, f"again{i}", *more) for i in range(3))[1]
    print(
        f"screening {rows} {what} rows: {cold:.1f} s ({cold_cpu:.1f} s of CPU) and {peak:.1f} GiB; again {warm:.1f} s "
        f"({warm_cpu:.1f} s of CPU), {cold_cpu / warm_cpu:.0f}x less",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spoken", type=int, default=10_000)
    spoken = parser.parse_args().spoken
    measured("written", write, ROWS)
    measured("spoken", speak, spoken, "--axis", "sound=logmel")


if __name__ == "__main__":
    main()
