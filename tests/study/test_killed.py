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


def asked(place: Path) -> str:
    """A study of recorded replies on texts alone, as JSON."""
    return json.dumps(written(place, study(record(place / "said.jsonl"))))


@pytest.mark.parametrize("times", [4, pytest.param(200, marks=pytest.mark.slow)])
def test_kills_of_a_study_and_of_a_screening(times: int, tmp_path: Path) -> None:
    """A busy machine is slower than it was when measured, so not each of the `times` comes before the end."""
    command = [sys.executable, killing.__file__, str(times), "1", str(tmp_path), asked(tmp_path)]
    told = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True).stdout
    killed = {name: int(count) for name, count in (line.split() for line in told.splitlines())}
    assert killed.keys() == killing.WORKS.keys()
    assert min(killed.values()) >= times // 4, killed


@pytest.mark.slow
def test_two_studies_at_once_on_one_store(tmp_path: Path) -> None:
    """Who comes second takes what the first made, or makes it too; both end alike."""
    code = (
        "import json, sys; from pathlib import Path; import killing;"
        "out = Path(sys.argv[1]); found = killing.audit(out, out.parent / 'store', sys.argv[2]);"
        "(out / 'found').write_text(json.dumps(found, sort_keys=True))"
    )
    path = os.pathsep.join([str(Path(killing.__file__).parent), os.environ.get("PYTHONPATH", "")])
    helpers = {**ENVIRONMENT, "PYTHONPATH": path}
    keys = asked(tmp_path)
    command = [sys.executable, "-c", code]
    both = [subprocess.Popen([*command, str(tmp_path / name), keys], env=helpers) for name in ("one", "two")]
    assert [process.wait() for process in both] == [0, 0]
    assert (tmp_path / "one" / "found").read_text() == (tmp_path / "two" / "found").read_text()
    assert not list((tmp_path / "store").glob("*/*.partial"))
