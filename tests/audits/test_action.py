"""action.yml: its steps run in a shell, in an environment like a runner's, with `gh` played by a script."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pages import page

from undersong.audits.gate.demo import demo_files

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = {step["name"]: step for step in ACTION["runs"]["steps"]}
GH = """#!/bin/sh
echo "$*" >> "$GH_LOG"
case "$*" in
  *"--paginate"*) printf '%s' "$GH_EARLIER" ;;
  *) exit "$GH_EXIT" ;;
esac
"""


class Runner:
    """A folder with what GitHub gives a job: files for outputs and summary, a temporary folder, and programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inputs = {name: str(spec["default"]) for name, spec in ACTION["inputs"].items()}
        self.outputs: dict[str, str] = {}
        self.summary = folder / "summary.md"
        self.gh_log = folder / "gh.log"
        (folder / "bin").mkdir()
        (folder / "bin" / "gh").write_text(GH)
        (folder / "bin" / "gh").chmod(0o755)
        (folder / "temp").mkdir()
        path = os.pathsep.join((str(folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]))
        self.environment = os.environ | {
            "PATH": path,
            "RUNNER_TEMP": str(folder / "temp"),
            "GITHUB_OUTPUT": str(folder / "output"),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "GITHUB_REPOSITORY": "owner/name",
            "GH_LOG": str(self.gh_log),
            "GH_EARLIER": "",
            "GH_EXIT": "0",
        }

    def value(self, expression: str) -> str:
        """What GitHub would put in the place of an expression."""
        kind, _, name = expression.partition(".")
        if kind == "inputs":
            return self.inputs[name]
        known = {"github.event.pull_request.number": "7"}
        return self.outputs[name.rpartition(".")[2]] if kind == "steps" else known[expression]

    def run(self, name: str) -> subprocess.CompletedProcess[str]:
        step = STEPS[name]
        fill = {
            key: re.sub(r"\$\{\{ (.*?) \}\}", lambda match: self.value(match[1]), text)
            for key, text in step.get("env", {}).items()
        }
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=self.folder, env=self.environment | fill, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        output = self.folder / "output"
        if output.exists():
            self.outputs = dict(line.split("=", 1) for line in output.read_text().splitlines())
        return done


@pytest.fixture
def runner(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


def test_the_file_is_a_composite_action() -> None:
    assert ACTION["runs"]["using"] == "composite"
    assert all({"name", "shell", "run"} <= step.keys() for step in STEPS.values())
    assert all("description" in spec for part in ("inputs", "outputs") for spec in ACTION[part].values())
    expressions = re.findall(r"inputs\.([\w-]+)", (ROOT / "action.yml").read_text())
    assert set(expressions) == set(ACTION["inputs"])


def test_no_expression_is_part_of_a_script() -> None:
    assert not [name for name, step in STEPS.items() if "${{" in step["run"]]


@pytest.mark.parametrize("what", ["", "undersong @ file:///my folder; touch $(touch a)"])
def test_one_argument_is_installed(runner: Runner, what: str) -> None:
    """pip gets the action's own folder, or the input as one word; nothing in it is run."""
    python = runner.folder / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > arguments\n')
    python.chmod(0o755)
    runner.environment["GITHUB_ACTION_PATH"] = "/actions/of me"
    runner.inputs["install"] = what
    assert runner.run("Install undersong").returncode == 0
    assert (runner.folder / "arguments").read_text().splitlines()[-1] == (what or "/actions/of me")
    assert not (runner.folder / "a").exists()


def test_steps_decide_comment_and_end_with_the_code(runner: Runner) -> None:
    before, after = demo_files()
    runner.inputs |= {"before": str(before), "after": str(after), "max-jsr-rise": "0.02", "change": "my `id` $(id)"}
    decided = runner.run("Decide")
    assert decided.returncode == 0, decided.stderr
    assert "“my `id` $(id)” failed" in decided.stderr
    stop, *lines, resume = decided.stdout.splitlines()
    assert stop == f"::stop-commands::{resume.strip(':')}"
    assert re.fullmatch("::[0-9a-f]{32}::", resume)
    assert len(lines) == 1
    assert runner.outputs["exit-code"] == "1"
    assert "❌ broken" in runner.summary.read_text(encoding="utf-8")
    assert all(Path(runner.outputs[name]).is_file() for name in ("page", "json", "junit"))
    assert json.loads(Path(runner.outputs["json"]).read_text())["exit_code"] == 1
    assert runner.run("Comment on the pull request").returncode == 0
    looked, posted = runner.gh_log.read_text().splitlines()
    assert 'startswith("<!-- undersong gate my--id----id- -->")' in looked
    assert posted.startswith("api --silent --method POST repos/owner/name/issues/7/comments --field body=@")
    comment = Path(posted.partition("body=@")[2]).read_text(encoding="utf-8").splitlines()
    assert comment[0] == "<!-- undersong gate my--id----id- -->"
    assert comment[1].startswith("**undersong gate** ❌")
    assert runner.run("End with the gate's exit code").returncode == 1


def test_an_earlier_comment_is_edited_and_a_refusal_is_a_warning(runner: Runner, tmp_path: Path) -> None:
    markdown = tmp_path / "gate.md"
    markdown.write_text("text")
    runner.outputs = {"markdown": str(markdown)}
    runner.environment |= {"GH_EARLIER": "41\n42\n", "GH_EXIT": "1"}
    done = runner.run("Comment on the pull request")
    assert done.returncode == 0
    assert "--method PATCH repos/owner/name/issues/comments/41 " in runner.gh_log.read_text()
    assert "::warning::undersong could not comment" in done.stdout


@pytest.mark.parametrize(
    ("code", "undecided", "ends"),
    [("0", "fail", 0), ("1", "warn", 1), ("2", "warn", 2), ("3", "fail", 3), ("3", "warn", 0), ("0", "maybe", 2)],
)
def test_the_exit_code_of_the_job(runner: Runner, code: str, undecided: str, ends: int) -> None:
    runner.outputs = {"exit-code": code}
    runner.inputs["undecided"] = undecided
    assert runner.run("End with the gate's exit code").returncode == ends


def test_bad_input_is_code_2_without_a_summary(runner: Runner) -> None:
    runner.inputs |= {"results": "nowhere.json", "max-jsr-rise": "0.02"}
    done = runner.run("Decide")
    assert (done.returncode, runner.outputs["exit-code"]) == (0, "2")
    assert "There is no file nowhere.json" in done.stderr
    assert not runner.summary.exists()


def test_the_page_gives_inputs_and_outputs_that_exist() -> None:
    workflow, *_ = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page("ci"), re.S))
    (step,) = (step for step in workflow["jobs"]["gate"]["steps"] if "undersong@" in step.get("uses", ""))
    table = page("ci").partition("| input |")[2].partition("The outputs are")[0]
    named = re.findall(r"`([a-z-]+)`", "".join(line.split("|")[1] for line in table.splitlines() if "|" in line))
    assert set(step["with"]) <= set(ACTION["inputs"]) == set(named)
    assert set(re.findall(r"steps\.gate\.outputs\.([\w-]+)", page("ci"))) <= set(ACTION["outputs"])
