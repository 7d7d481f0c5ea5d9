"""`doctor` without a model: what this machine lacks is a line that says no, or that it is not needed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.standalone import environment
from undersong.store.store import Store

NEEDS = ["numpy>=1", "nothing-of-that-name>=2", "sentence-x>=6; extra == 'encoders'", "numpy>=1; extra == 'small'"]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[int, dict[str, tuple[str, str]]]]:
    """Exit code, and line -> (yes | no | -, what is said)."""
    monkeypatch.chdir(tmp_path)

    def call() -> tuple[int, dict[str, tuple[str, str]]]:
        done = CliRunner().invoke(app, ["doctor"])
        lines = [[*line[4:].split(": ", 1), line[:4].strip()] for line in done.output.splitlines()]
        return done.exit_code, {name: (word, said) for name, said, word in lines}

    return call


def test_a_machine_that_runs_these_tests_is_fit_and_left_as_it_was(doctor, tmp_path: Path) -> None:
    code, lines = doctor()
    assert code == 0
    assert {name: word for name, (word, _) in lines.items() if word == "no"} == {}
    assert set(environment.CHECKS) | {"store", "extra dev"} <= set(lines)
    assert lines["python"][1].startswith("3.")
    assert "1 threads per process" in lines["torch"][1]
    assert "kimi-2" in lines["organisms"][1]
    assert str(tmp_path) in lines["store"][1]
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_told_and_what_is_only_wanted_sometimes_does_not_fail(
    doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata, "requires", lambda _name: NEEDS)
    code, lines = doctor()
    assert code == 1
    assert lines["packages"] == ("no", "nothing-of-that-name is not installed; reinstall undersong")
    lacking = "sentence-x is not installed; pip install -e '.[encoders]' in the clone of undersong if you need it"
    assert lines["extra encoders"] == ("-", lacking)
    monkeypatch.setattr(metadata, "requires", lambda _name: [NEEDS[0], "numpy<1; extra == 'encoders'"])
    code, lines = doctor()
    assert code == 0
    assert f"numpy is {metadata.version('numpy')} and not <1" in lines["extra encoders"][1]


def test_a_disk_that_takes_nothing_is_told(doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args, **_more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "get_or_make", full)
    code, lines = doctor()
    assert (code, lines["store"][0]) == (1, "no")
    assert "No space left on device" in lines["store"][1]
    monkeypatch.undo()
    monkeypatch.setattr(environment, "MIN_DISK_GB", 1e9)
    assert environment._check_store(Path("nowhere/deep"))[0] is False


def test_an_old_python_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "MIN_PYTHON", (9, 1))
    good, said = environment._check_python()
    assert not good
    assert said.endswith("undersong needs 9.1 or newer")
