"""Memory of two screenings: vectors mapped from disk against vectors held, and TF-IDF of many words against few.

Ready embeddings of `--rows` items (default 600,000, 1,024 dimensions: 2.5 GB of vectors), each screening in a process
of its own.  Prints the peak of the memory that belongs to the process (anonymous: the kernel cannot take it back as it
can mapped pages), as a share of the vectors.  Then `--texts` texts (default 50,000) by TF-IDF, over a vocabulary of
`--words` words and over one of 100: the vectors are sparse, so the vocabulary should not matter.  Linux only.
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
from pathlib import Path

import numpy as np

from undersong.encoders.embeddings import ROWS_PER_FILE, embeddings_table, write_embeddings
from undersong.types import Embeddings

ROWS, DIM, HARM = 600_000, 1_024, 520
CODE = """
import sys
from undersong.encoders import embeddings
from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.run import run_screening
embeddings.MAPPED_BYTES = int(sys.argv[1])
run_screening("pool", "harm", sys.argv[2], ScreeningOptions())
"""


TEXTS, WORDS, FEW_WORDS, TEXT_LENGTH = 50_000, 5_000, 100, 12
TEXT_CODE = """
import sys
from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.run import run_screening
run_screening("pool.jsonl", "harm.jsonl", sys.argv[1], ScreeningOptions(axes={"semantic": "tfidf"}))
"""


def write_texts(file: Path, count: int, words: int, seed: int) -> None:
    rng = random.Random(seed)
    with file.open("w") as lines:
        for number in range(count):
            text = " ".join(f"w{int(words * rng.random() ** 2)}" for _ in range(TEXT_LENGTH))  # a few are frequent
            lines.write(json.dumps({"id": f"{file.stem}{number}", "text": text}) + "\n")


def measure_texts(texts: int, words: int) -> None:
    """Print the peaks of two screenings of as many texts, over many and over few words."""
    peaks = []
    for vocabulary in (words, FEW_WORDS):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            write_texts(folder / "pool.jsonl", texts, vocabulary, 0)
            write_texts(folder / "harm.jsonl", HARM, vocabulary, 1)
            peaks.append(peak_bytes(folder, TEXT_CODE, "out")[0])
    many, few = peaks
    print(
        f"memory: TF-IDF of {texts:,} texts: {words:,} words {many / 2**20:.0f} MiB, {FEW_WORDS} words "
        f"{few / 2**20:.0f} MiB (ratio {many / few:.2f}); dense vectors would take {texts * words * 4 / 2**20:.0f} MiB"
    )


def write_pool(folder: Path, rows: int) -> None:
    """A file at a time, so that this process never holds the pool."""
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    folder.mkdir()
    for number, start in enumerate(range(0, rows, ROWS_PER_FILE)):
        count = min(ROWS_PER_FILE, rows - start)
        vectors = rng.standard_normal((count, DIM), dtype=np.float32) + 1
        table = embeddings_table([f"p{start + i}" for i in range(count)], vectors, np.zeros(count, np.int64))
        pq.write_table(table, folder / f"embeddings-{number:05d}.parquet", compression="none")


def peak_bytes(folder: Path, code: str, *arguments: str) -> tuple[int, float]:
    """Highest anonymous memory and wall seconds of one screening."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    start, peak = time.monotonic(), 0
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=folder, env=environment)
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        anonymous = [line.split()[1] for line in status.splitlines() if line.startswith("RssAnon")]
        peak = max(peak, *(1024 * int(kilobytes) for kilobytes in anonymous), 0)
        time.sleep(0.01)
    if process.returncode:
        raise SystemExit("a screening failed")
    return peak, time.monotonic() - start


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--texts", type=int, default=TEXTS)
    parser.add_argument("--words", type=int, default=WORDS)
    options = parser.parse_args([] if arguments is None else arguments)
    rows = options.rows
    if not Path("/proc/self/status").exists():
        print("memory: needs /proc, which this system does not have: not measured")
        return
    measure_texts(options.texts, options.words)
    size = rows * DIM * 4
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_pool(folder / "pool", rows)
        vectors = np.random.default_rng(1).standard_normal((HARM, DIM), dtype=np.float32) + 1
        harm = Embeddings(tuple(f"h{i}" for i in range(HARM)), vectors, np.zeros(HARM, np.int64))
        write_embeddings(harm, folder / "harm")
        (held, held_seconds), (mapped, mapped_seconds) = (
            peak_bytes(folder, CODE, str(threshold), name) for name, threshold in (("held", 2**62), ("mapped", 0))
        )
        tables = [(folder / name / "proximity.parquet").read_bytes() for name in ("held", "mapped")]
    if tables[0] != tables[1]:
        raise SystemExit("the two screenings differ")
    print(
        f"memory: screening {rows:,} vectors of {DIM} dimensions ({size / 2**20:.0f} MiB): mapped {mapped / size:.2f}x "
        f"of their size, held {held / size:.2f}x (ratio {mapped / held:.2f}; {mapped_seconds:.0f} against "
        f"{held_seconds:.0f} s), the same table"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
