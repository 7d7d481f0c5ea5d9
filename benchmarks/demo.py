"""The demo twice: what it costs, and how much faster the second, unchanged run is.  Wall and CPU of whole processes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run(out: Path) -> tuple[float, float]:
    """-> (wall, CPU) seconds of one `undersong demo`."""
    command = [sys.executable, "-c", "from undersong.cli import main; main()", "demo", "--out", str(out)]
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - start, cpu


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = run(Path(folder)), run(Path(folder))
        stages = json.loads((Path(folder) / "results.json").read_text())["provenance"]["cpu_seconds_by_stage"]
    ratio = first[1] / second[1]
    print(f"demo: first {first[1]:.0f} CPU s ({first[0]:.0f} s wall), second {second[1]:.1f} CPU s: {ratio:.0f}x")
    print("demo by stage, CPU s:", ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(stages.items())))


if __name__ == "__main__":
    main()
