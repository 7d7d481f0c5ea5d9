"""Work killed at random moments, by forks of one process that has all imports done: `python killing.py`.

argv: how often, the seed, a folder, and the argument of `audit`.  Prints of each work how many were killed.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from undersong.scale import embedding_shards
from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.run import run_screening
from undersong.study.load import parse_study
from undersong.study.run import run_audit

embedding_shards.SHARD_ROWS = 40  # so that there are shards to be killed between
SCREENED = ("proximity.parquet", "quarantine.parquet", "selection.json", "screening.json", "kept.parquet")
Work = Callable[[Path, Path, str], object]


def screening(out: Path, store: Path, _argument: str) -> object:
    """A screening, and the bytes of all it wrote."""
    axes = {"words": "tfidf", "letters": "char-ngrams"}
    asked = ScreeningOptions(axes=axes, keep="closest:0.25+group<=2", store=str(store))
    run_screening("organism:pool", "organism:reference", out, asked)
    return [(out / name).read_bytes().hex() for name in SCREENED]


def audit(out: Path, store: Path, keys: str) -> object:
    """A study, and the hash of its results with every verdict."""
    done = run_audit(parse_study(json.loads(keys), "s"), out, store)
    return [done.result_hash, (out / "verdicts.parquet").read_bytes().hex(), done.results["runs"]]


WORKS: dict[str, Work] = {"screening": screening, "audit": audit}


def forked(doing: Work, out: Path, store: Path, argument: str, found: Path) -> int:
    """The process that does the work and writes what it found; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        found.write_text(json.dumps(doing(out, store, argument), sort_keys=True))
        found.with_suffix(".modules").write_text(json.dumps(sorted(sys.modules)))
        code = 0
    finally:  # a fork must not go on as if it were its parent
        if code:
            traceback.print_exc()
        os._exit(code)


def killed_often(name: str, times: int, seed: int, place: Path, argument: str) -> int:
    """Killed at moments drawn by `seed`, and begun again where it was left, or anew when it got through; the last is
    left alone.  Every one that gets through must find what an undisturbed one finds."""

    def begin(store: str, out: str = "out") -> tuple[int, Path]:
        found = place / f"{out}.found"
        found.unlink(missing_ok=True)
        return forked(WORKS[name], place / out, place / store, argument, found), found

    def ended(child: int) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert ended(begin("warm-store", "warm")[0]) == 0
    for module in json.loads((place / "warm.modules").read_text()):  # what is imported late is imported by now
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    start = time.monotonic()
    child, found = begin("plain-store", "plain")
    assert ended(child) == 0
    whole, wanted = time.monotonic() - start, found.read_text()
    rng, killed, stores = random.Random(seed), 0, 1
    for _ in range(times):
        child, found = begin(f"store-{stores}")
        time.sleep(rng.uniform(0, 0.9) * whole)
        os.kill(child, signal.SIGKILL)
        code = ended(child)
        assert code in (0, -signal.SIGKILL), code
        killed += code != 0
        if code == 0:
            assert found.read_text() == wanted
            stores += 1
    child, found = begin(f"store-{stores}")
    assert ended(child) == 0
    assert found.read_text() == wanted
    left = [path for pattern in ("*/*.partial", "*/*.shards*") for path in (place / f"store-{stores}").glob(pattern)]
    assert not left, left
    assert "torch" not in sys.modules
    return killed


if __name__ == "__main__":
    count, drawn, folder, more = sys.argv[1:]
    for kind in WORKS:
        (Path(folder) / kind).mkdir()
        print(kind, killed_often(kind, int(count), int(drawn), Path(folder) / kind, more))
