"""Arguments that a command cannot use: one sentence that says what to change, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_here

SEEN = [
    (["rnu"], "undersong has no command 'rnu'; did you mean 'run'?"),
    (["zzzzzz"], "undersong has no command 'zzzzzz'; `undersong --help` lists them."),
    (["--versoin"], "undersong has no option --versoin; did you mean '--version'?"),
    (["screen", "p", "--keeep", "3"], "undersong screen has no option --keeep; did you mean '--keep'?"),
    (["run", "--zzzzzz"], "undersong run has no option --zzzzzz; `undersong run --help` lists its options."),
    (["models", "zzz"], "undersong models has no command 'zzz'; `undersong models --help` lists them."),
    (
        ["models", "get"],
        "undersong models get: missing argument 'name'; `undersong models get --help` says what it takes.",
    ),
    (["run"], "undersong run: missing argument 'study'; `undersong run --help` says what it takes."),
    (
        ["run", "s", "--out"],
        "undersong run: option '--out' requires an argument; `undersong run --help` says what it takes.",
    ),
    (["tune", "p", "--batch-size", "many"], "undersong tune: invalid value for '--batch-size': "),
    (["tune", "p", "--batch-size", "0"], "undersong tune: invalid value for '--batch-size': "),
    (["run", "a.yaml", "b.yaml"], "undersong run: got unexpected extra argument"),
]


@pytest.mark.parametrize(("arguments", "sentence"), SEEN, ids=[" ".join(arguments) for arguments, _ in SEEN])
def test_an_unusable_argument_is_one_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    done = run_here(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"undersong: {sentence}")
    assert line.endswith((".", "?"))
    assert "Traceback" not in line


@pytest.mark.parametrize("name", ["--x\x1b[2J\n::error::y", "x\x1b[2J\n::error::y"])
@pytest.mark.parametrize("before", [[], ["run"], ["models"], ["tune", "p", "--seed"]])
def test_a_hostile_argument_stays_on_its_line(before: list[str], name: str, tmp_path: Path) -> None:
    done = run_here(tmp_path, *before, name)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.isprintable()


def test_no_argument_at_all_shows_the_help(tmp_path: Path) -> None:
    done = run_here(tmp_path)
    assert done.returncode == 2
    assert "export-eval" in done.stdout + done.stderr
