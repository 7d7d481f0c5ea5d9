"""`undersong gate --demo`: the verdict of the tables that ship, without a model and without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import resources
from pathlib import Path

from undersong.audits.gate.demo import demo_files
from undersong.store.hashing import hash_file

PROGRAM = """
import json, sys
sys.argv = ["undersong", "gate", "--demo"]
from undersong.cli import main
try:
    main()
except SystemExit as stopped:
    code = stopped.code
loaded = {name.split(".")[0] for name in sys.modules}
print(json.dumps([code, sorted(loaded & {"torch", "transformers", "pandas", "matplotlib"})]))
"""


def test_the_demo_closes_the_gate_and_loads_no_model_library() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=1800)
    assert "failed: 1 of 2 limits broken (exit 1)" in done.stderr
    assert "0.9% → 26.9% over 108 prompts in 36 clusters" in done.stdout
    assert done.stdout.splitlines()[1].endswith("the limit is 10: kept")
    assert json.loads(done.stdout.splitlines()[-1]) == [1, []]


def test_the_limits_of_the_demo_can_be_given(gate, tmp_path: Path) -> None:
    code, out, _ = gate("--demo", "--max-jsr-rise", 0.5, "--json", tmp_path / "gate.json")
    assert code == 0
    assert "“fine-tuning on 162 benign clips” passed: 1 of 1 limits kept" in out
    assert json.loads((tmp_path / "gate.json").read_text())["change"] == "fine-tuning on 162 benign clips"


def test_the_demo_takes_no_other_change(gate) -> None:
    code, out, err = gate("--demo", "--change", "quantization")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--demo shows the verdicts of a fine-tuning" in err
    assert "leave out --change." in err


def test_the_demo_takes_no_other_verdicts(gate, tmp_path: Path) -> None:
    code, _, err = gate("--demo", "--before", tmp_path / "a.parquet")
    assert (code, "leave out RESULTS, --before and --after" in err) == (2, True)


def test_the_card_has_the_hashes_of_the_files() -> None:
    card = (Path(str(resources.files("undersong"))) / "data" / "gate_demo" / "CARD.md").read_text(encoding="utf-8")
    assert all(f"| {file.name} | `{hash_file(file)}` |" in card for file in demo_files())
