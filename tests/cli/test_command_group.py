"""Arguments that a command cannot use: one sentence that says what to change, and exit code 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import run_here
from typer.main import get_command

from undersong.cli.app import app
from undersong.cli.verb_groups import VERB_GROUPS, group_verbs, overview_lines

SEEN = [
    (["rnu"], "undersong has no command 'rnu'; did you mean 'run'?"),
    (["zzzzzz"], "undersong has no command 'zzzzzz'; `undersong --help` lists them."),
    (["--versoin"], "undersong has no option --versoin; did you mean '--version'?"),
    (["screen", "p", "--keeep", "3"], "undersong screen has no option --keeep; did you mean '--keep'?"),
    (
        ["tune", "p", "--steps", "4"],
        "undersong tune has no option --steps; did you mean '--save-step' or '--warmup-steps'?",
    ),
    (["run", "--zzzzzz"], "undersong run has no option --zzzzzz; `undersong run --help` lists its options."),
    (
        ["evaluate", "p", "--bogus"],
        "undersong evaluate has no option --bogus; `undersong evaluate --help` lists its opt",
    ),
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


def test_no_argument_at_all_names_the_verbs_by_when_they_are_used(tmp_path: Path) -> None:
    done = run_here(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    *lines, hint = done.stdout.splitlines()
    assert len(lines) == 6
    assert "--help" in hint
    verbs = [verb for line in lines for verb in line.partition("  ")[2].strip().split(", ")]
    assert sorted(verbs) == sorted(get_command(app).commands)
    assert [heading.split(":")[0].lower() for heading in run_here(tmp_path, "--help").stdout.splitlines()
            if heading.endswith(":") and heading != "Options:"] == [line.split("  ")[0] for line in lines]  # fmt: skip


def test_a_verb_of_no_group_is_a_tool_and_one_that_is_not_there_is_left_out() -> None:
    groups = group_verbs(["probe", "sing", "models"])
    assert groups == {"why": ["probe"], "tools": ["models", "sing"]}
    assert overview_lines(["probe", "sing"]) == ["why    probe", "tools  sing"]


@pytest.mark.parametrize(
    "verb", [(), *((name,) for name in get_command(app).commands), ("models", "get")], ids=" ".join
)
def test_the_short_option_of_help(verb: tuple[str, ...], tmp_path: Path) -> None:
    short, long = run_here(tmp_path, *verb, "-h"), run_here(tmp_path, *verb, "--help")
    assert (short.returncode, short.stdout) == (0, long.stdout)
    assert short.stdout.startswith(" ".join(["Usage: undersong", *verb]))


@pytest.mark.parametrize("group", [(), ("models",)], ids=" ".join)
def test_no_summary_of_a_command_is_cut(
    group: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    printed = run_here(tmp_path, *group, "--help").stdout
    assert "..." not in printed.split("Options:")[1]


def test_the_table_of_the_readme_has_every_verb_in_its_group() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = readme.partition("| when | command | what it does |\n")[2].partition("\n\n")[0]
    found: dict[str, set[str]] = {}
    group = ""
    for line in table.splitlines()[1:]:
        when, commands = (cell.strip() for cell in line.split("|")[1:3])
        group = when or group
        words = commands.replace("`", "").removeprefix("undersong ").split(", ")
        found.setdefault(group, set()).update(word.split()[0] for word in words)
    assert found == {name: set(verbs) for name, verbs in VERB_GROUPS.items()}
    assert list(found) == list(VERB_GROUPS)
