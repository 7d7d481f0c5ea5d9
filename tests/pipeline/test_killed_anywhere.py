"""SIGKILL at random moments: nothing half-written is ever read, and the end is that of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

# Small shards, so that there is something to be killed between; no torch is loaded.
SCREEN = """
import sys
from undersong.pipeline.screening import Asked, screen
from undersong.scale import work

work.ROWS = 40
axes = {"words": "tfidf", "letters": "char-ngrams"}
asked = Asked(axes=axes, keep="closest:0.25+group<=2", store=sys.argv[2])
screen("organism:pool", "organism:reference", sys.argv[1], asked)
assert "torch" not in sys.modules
"""
FILES = ("proximity.parquet", "quarantine.parquet", "selection.json", "screening.json", "kept.parquet")


def start(out: Path, store: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", SCREEN, str(out), str(store)], env=environment)


def killed_often(times: int, seed: int, tmp_path: Path) -> int:
    """A screening killed at moments drawn by `seed`, and begun again where it was left, or anew when it got through.

    The last is left alone.  Returns how many were killed.
    """
    begin = time.monotonic()
    assert start(tmp_path / "plain", tmp_path / "plain-store").wait() == 0
    whole = time.monotonic() - begin
    wanted = {name: (tmp_path / "plain" / name).read_bytes() for name in FILES}
    rng, killed, stores = random.Random(seed), 0, 1
    for _ in range(times):
        out, store = tmp_path / "out", tmp_path / f"store-{stores}"
        process = start(out, store)
        time.sleep(rng.uniform(0.3, 0.9) * whole)
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            killed += 1
        else:
            stores += 1
        if out.exists():  # whole or not there
            assert {name: (out / name).read_bytes() for name in FILES} == wanted
    last = tmp_path / f"store-{stores}"
    assert start(tmp_path / "out", last).wait() == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in FILES} == wanted
    assert not list(last.glob("*/*.partial"))
    assert not list(last.glob("*/*.shards*"))
    return killed


def test_twenty_kills(tmp_path: Path) -> None:
    assert killed_often(20, 0, tmp_path) >= 5  # a busy machine is slower than it was when it was measured


@pytest.mark.slow
def test_two_hundred_kills(tmp_path: Path) -> None:
    assert killed_often(200, 1, tmp_path) >= 5  # a busy machine is slower than it was when it was measured0
