"""A screening of 100,000 written items, and the very same again: with a store the second is a look-up.

Each runs in a process of its own, as a user's would.  Prints both, their ratio, and the memory of the first.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS, HARM, WORDS = 100_000, 520, 1_450


def write(file: Path, rows: int, seed: int) -> Path:
    """Ten words an item, eleven items a group."""
    rng = random.Random(seed)
    vocabulary = [f"word{i}" for i in range(WORDS)]
    with file.open("w") as out:
        for i in range(rows):
            row = {"id": f"{file.stem}{i}", "text": " ".join(rng.choices(vocabulary, k=10)), "group": f"g{i // 11}"}
            out.write(json.dumps(row) + "\n")
    return file


def seconds(folder: Path, out: str) -> float:
    """Wall seconds of one screening."""
    code = "from undersong.cli import main; main()"
    asked = ["screen", "pool.jsonl", "--harm", "harm.jsonl", "--store", "store", "--out", out]
    start = time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, "-c", code, *asked], cwd=folder, env=environment, check=True, stdout=subprocess.DEVNULL
    )
    return time.monotonic() - start


def main() -> None:
    import resource

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "pool.jsonl", ROWS, 0)
        write(folder / "harm.jsonl", HARM, 1)
        cold = seconds(folder, "first")
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        warm = sorted(seconds(folder, f"again{i}") for i in range(3))[1]
    print(f"screening {ROWS} rows: {cold:.1f} s and {peak:.1f} GiB; again {warm:.1f} s, {cold / warm:.0f}x faster")


if __name__ == "__main__":
    main()
