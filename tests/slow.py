"""`make test-slow`: every slow proof whole, one test file a part, resumable.

A part that passed at this commit is not run again; the record is `out/slow.json`.  Each part is stopped after an hour.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "out" / "slow.json"
HOUR = 3600


def parts() -> list[str]:
    """Test files that hold slow tests."""
    return sorted(str(f.relative_to(ROOT)) for f in (ROOT / "tests").rglob("test_*.py") if "mark.slow" in f.read_text())


def main() -> int:
    commit = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {}
    failed = []
    for part in parts():
        if record.get(part, {}).get("commit") == commit and record[part]["passed"]:
            print(f"{part}: passed already at {commit[:9]}")
            continue
        start = time.monotonic()
        command = [sys.executable, "-m", "pytest", "-m", "slow", part]
        try:
            passed = subprocess.run(command, cwd=ROOT, timeout=HOUR, check=False).returncode == 0
        except subprocess.TimeoutExpired:
            passed = False
        minutes = (time.monotonic() - start) / 60
        record[part] = {
            "commit": commit,
            "passed": passed,
            "date": time.strftime("%Y-%m-%d"),
            "minutes": round(minutes, 1),
        }
        RECORD.parent.mkdir(exist_ok=True)
        RECORD.write_text(json.dumps(record, indent=1))
        failed += [] if passed else [part]
        print(f"{part}: {'passed' if passed else 'FAILED'} in {minutes:.1f} min")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
