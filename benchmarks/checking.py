"""A check of 100,000 written samples, and the very same again, which the store answers; each in a process of its own.

Prints CPU seconds of both beside those of reading the file as JSON alone, and the memory of the first.  Then opens the
page of a check of 5,000 samples in headless Chromium, where there is one.
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
from resource import RUSAGE_CHILDREN, getrusage

from benchmarks.report import opened

ROWS, SHOWN = 100_000, 5_000
ROOT = Path(__file__).parents[1]
PARSE = "import json; print(sum(len(json.loads(line)['messages']) for line in open('train.jsonl')))"
CHECK = "from undersong.cli import main; main()"


def write(file: Path, seed: int) -> None:
    """Conversations of one turn, of 6 to 30 words of ordinary requests."""
    from undersong.corpora.registry import open_corpus

    rng = random.Random(seed)
    words = [word for sample in open_corpus("shipped:ordinary").samples for word in (sample.text or "").split()]
    with file.open("w") as out:
        for _ in range(ROWS):
            question = " ".join(rng.choices(words, k=rng.randint(6, 30)))
            turns = [{"role": "user", "content": question}, {"role": "assistant", "content": "It is so. " * 5}]
            out.write(json.dumps({"messages": turns}) + "\n")


def spent(folder: Path, code: str, *arguments: str) -> tuple[float, float]:
    """CPU and wall seconds of one process. A check ends with 0 or 1."""
    before, start = getrusage(RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    assert done.returncode in (0, 1), done.returncode
    after = getrusage(RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, time.monotonic() - start


def main() -> None:
    sys.path.insert(0, str(ROOT / "tests" / "helpers"))  # for the browser
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "train.jsonl", 0)
        parsed, _ = spent(folder, PARSE)
        command = ("check", "train.jsonl", "--store", "store")
        cold, cold_wall = spent(folder, CHECK, *command)
        peak = getrusage(RUSAGE_CHILDREN).ru_maxrss / 2**20
        warm, warm_wall = spent(folder, CHECK, *command)
        lines = (folder / "train.jsonl").read_text().splitlines(keepends=True)
        (folder / "shown.jsonl").write_text("".join(lines[:SHOWN]))
        spent(folder, CHECK, "check", "shown.jsonl", "--page", "page.html")
        (folder / "browser").mkdir()
        seconds = opened((folder / "page.html").read_text(), folder / "browser")
    first = f"{cold:.1f} CPU s ({cold_wall:.1f} s wall) and {peak:.1f} GiB, {cold / parsed:.0f}x of parsing the file"
    again = f"again {warm:.1f} CPU s ({warm_wall:.1f} s wall), {cold / warm:.0f}x less"
    print(f"check of {ROWS} samples: {first} ({parsed:.1f} CPU s); {again}")
    print(f"page of {SHOWN} samples: {'no browser' if seconds is None else f'opened in {seconds:.2f} s'}")


if __name__ == "__main__":
    main()
