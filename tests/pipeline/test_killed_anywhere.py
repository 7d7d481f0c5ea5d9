"""SIGKILL at random moments: nothing half-written is ever read, and the end is that of an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest
from recorded import record, study, written

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def killed_often(work: str, times: int, seed: int, place: Path, argument: str = "") -> int:
    """How many of `times` were killed before they got through; a busy machine is slower than it was when measured."""
    command = [sys.executable, killing.__file__, work, str(times), str(seed), str(place), argument]
    return int(subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout)


def asked(place: Path) -> str:
    """A study of recorded replies on texts alone, as JSON."""
    return json.dumps(written(place, study(record(place / "said.jsonl"))))


def test_twenty_kills_of_a_study(tmp_path: Path) -> None:
    assert killed_often("audit", 20, 0, tmp_path, asked(tmp_path)) >= 5


def test_twenty_kills_of_a_screening(tmp_path: Path) -> None:
    assert killed_often("screening", 20, 0, tmp_path) >= 5


@pytest.mark.slow
def test_two_hundred_kills_of_a_study(tmp_path: Path) -> None:
    assert killed_often("audit", 200, 1, tmp_path, asked(tmp_path)) >= 50


@pytest.mark.slow
def test_two_hundred_kills_of_a_screening(tmp_path: Path) -> None:
    assert killed_often("screening", 200, 1, tmp_path) >= 50


def test_two_studies_at_once_on_one_store(tmp_path: Path) -> None:
    """Who comes second takes what the first made, or makes it too; both end alike."""
    code = (
        "import json, sys; from pathlib import Path; import killing;"
        "out = Path(sys.argv[1]); found = killing.audit(out, out.parent / 'store', sys.argv[2]);"
        "(out / 'found').write_text(json.dumps(found, sort_keys=True))"
    )
    helpers = {**ENVIRONMENT, "PYTHONPATH": str(Path(killing.__file__).parent)}
    keys = asked(tmp_path)
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen([*command, str(tmp_path / name), keys], env=helpers) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "one" / "found").read_text() == (tmp_path / "two" / "found").read_text()
    assert not list((tmp_path / "store").glob("*/*.partial"))
