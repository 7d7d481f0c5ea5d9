"""The demo whole: an undisturbed run, and three that are killed for real and go on; and the one on real words."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from undersong.models.mini.paths import is_assembled

pytestmark = pytest.mark.slow
DEMO = [sys.executable, "-c", "from undersong.cli import main; main()", "demo", "--out"]


def hash_of(folder: Path) -> str:
    return json.loads((folder / "results.json").read_text())["provenance"]["result_hash"]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "out"
    subprocess.run([*DEMO, str(out)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=7200)
    return out


@pytest.mark.parametrize("adapters", [0, 5, 12])
def test_killed_when_so_many_adapters_are_there(adapters: int, undisturbed: Path, tmp_path: Path) -> None:
    process = subprocess.Popen([*DEMO, str(tmp_path)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    folder = tmp_path / "store" / "adapter"
    while process.poll() is None:
        whole = (
            [p for p in folder.glob("*") if p.suffix != ".partial" and not p.name.startswith(".")]
            if folder.exists()
            else []
        )
        if len(whole) >= adapters and (tmp_path / "store").exists():
            break
        time.sleep(0.2)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "results.json").exists()
    subprocess.run([*DEMO, str(tmp_path)], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=7200)
    assert hash_of(tmp_path) == hash_of(undisturbed)


@pytest.mark.skipif(not is_assembled("mini"), reason="mini is not assembled here")
def test_on_real_words_one_hears_a_request_and_reads_two_replies(tmp_path: Path) -> None:
    command = [*DEMO, str(tmp_path), "--model", "mini"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=7200)
    results = json.loads((tmp_path / "results.json").read_text())
    page = (tmp_path / "report.html").read_text()
    assert f"result hash {results['provenance']['result_hash']}" in done.stdout
    assert {run["seed"] for run in results["runs"]} == {None, 0, 1}
    assert {run["kind"] for run in results["runs"]} == {"base", "closest", "distant"}
    mild = [row for row in results["examples"] if row["prompt_set"] == "mild"]
    assert len(mild) == 12 * 3  # before, after the closest, after the distant
    assert all(row["reply"] is not None for row in mild)
    assert {row["reply"] for row in results["examples"] if row["prompt_set"] == "advbench"} == {None}
    assert page.count('aria-label="Request mild') == 12
