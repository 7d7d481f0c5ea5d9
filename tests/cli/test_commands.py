"""The command line as a whole: help without heavy imports, and failures as one sentence with exit code 2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Undersong, undersong_in

from undersong.cli.app import app

HEAVY = ("torch", "transformers", "peft", "scipy", "matplotlib", "sklearn", "pandas", "pyarrow", "numpy", "rich")
VERBS = [verb.name for verb in app.registered_commands if verb.name]
VERBS += [group.name for group in app.registered_groups if group.name]


@pytest.fixture
def undersong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undersong:
    """The command line in an empty folder -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    return undersong_in(tmp_path)


def loaded_by(code: str) -> set[str]:
    """Top-level modules in memory after `code` ran in a fresh interpreter."""
    tell = "\nimport json; sys.stderr.write('\\n' + json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}{tell}"],
        capture_output=True,
        text=True,
        env=os.environ,
        timeout=1800,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_help_loads_nothing_heavy() -> None:
    call = "sys.argv = ['undersong', '--help']\nfrom undersong.cli import main\ntry: main()\nexcept SystemExit: pass"
    modules = loaded_by(call)
    assert "typer" in modules
    assert modules.isdisjoint(HEAVY)


def test_shells_complete_verbs_and_options(undersong: Undersong, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/bin/bash")
    command = [str(Path(sys.executable).parent / "undersong")]
    asked = {"_UNDERSONG_COMPLETE": "complete_bash", "COMP_WORDS": "undersong sc", "COMP_CWORD": "1"}
    for more, words in ((asked, ["schema", "screen"]), ({"_UNDERSONG_COMPLETE": "source_bash"}, ["complete -o"])):
        done = subprocess.run(command, env=os.environ | more, capture_output=True, text=True, timeout=1800)
        assert all(word in done.stdout for word in words), done.stderr
    assert "--install-completion" in undersong("--help")[1]


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_by("import undersong, undersong.cli.app").isdisjoint(HEAVY)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help(undersong: Undersong, verb: str) -> None:
    code, out, err = undersong(verb, "--help")
    assert (code, err) == (0, "")
    assert f"undersong {verb}" in out
    assert "--help" in out


def test_help_names_every_verb(undersong: Undersong) -> None:
    code, out, _ = undersong("--help")
    assert code == 0
    assert len(VERBS) == 28
    assert all(f"\n  {verb} " in out for verb in VERBS)


def test_version(undersong: Undersong) -> None:
    from undersong import __version__

    assert undersong("--version") == (0, f"{__version__}\n", "")


STUDY = {
    "study": "small",
    "models": ["organism:af3"],
    "pool": "organism:pool",
    "reference": "organism:reference",
    "prompt_sets": {"harm": {"corpus": "organism:test-harm", "harmful": True}},
    "axes": {"semantic": "tfidf"},
}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "nowhere.yaml"], "There is no study file nowhere.yaml"),
        (["run", "typo.yaml"], "unknown key 'tunning'; did you mean 'tuning'?"),
        (["plan", "typo.yaml"], "unknown key 'tunning'; did you mean 'tuning'?"),
        (["run", "inner.yaml"], "unknown key 'tuning.step'; did you mean 'save_steps'?"),
        (["run", "list.yaml"], "list.yaml holds a list"),
        (["run", "good.yaml", "--out", "file"], "file is a file; give a folder for --out"),
        (["run", "good.yaml", "--dtype", "int3"], "no dtype 'int3'"),
        (["plan", "good.yaml", "--dtype", "int3"], "no dtype 'int3'"),
        (["run", "circle.yaml"], "circle.yaml is its own base (circle.yaml -> circle.yaml)"),
        (["plan", "good.yaml", "--override", "tuning.sedes=[0]"], "unknown key 'tuning.sedes'; did you mean 'seeds'?"),
        (["defend", "good.yaml", "--override", "tuning"], "--override tuning has no value"),
        (["status", "good.yaml", "--only", "smal"], "no study 'smal'; did you mean 'small'?"),
        (["run", "good.yaml", "--arm", "bas"], "Study small has no arm 'bas'; did you mean 'base'?"),
        (["plan", "encoder.yaml"], "Unknown encoder 'tfid'"),
        (["demo", "--out", "file"], "file is a file; give a folder for --out"),
        (["screen", "nowhere.jsonl", "--harm", "nowhere.jsonl", "--out", "out"], "nowhere.jsonl"),
        (["tune", "nowhere.jsonl", "--model", "organism:af3", "--out", "out"], "no manifest nowhere.jsonl"),
        (["tune", "organism:pool", "--model", "organism:af3", "--out", "file"], "name a new folder with --out"),
        (
            ["tune", "organism:pool", "--model", "organism:af3", "--out", "out", "--learning-rate", "0"],
            "--learning-rate cannot be 0.0",
        ),
        (["evaluate", "nowhere.jsonl", "--model", "organism:af3", "--out", "out"], "no manifest nowhere.jsonl"),
        (
            ["evaluate", "organism:pool", "--model", "organism:af3", "--out", "out", "--judge", "oracle"],
            "no judge 'oracle'",
        ),
        (["evaluate", "organism:pool", "--model", "mni", "--out", "out", "--judge", "keyword"], "did you mean 'mini'?"),
        (["tune", "organism:pool", "--model", "organsm:af3", "--out", "out"], "did you mean 'organism:af3'?"),
        (["tune", "organim:pool", "--model", "organism:af3", "--out", "out"], "did you mean 'organism:pool'?"),
        (["screen", "organism:pool", "--harm", "refrence", "--out", "out"], "did you mean 'organism:reference'?"),
        (["compare", "nowhere.jsonl", "nowhere.jsonl"], "nowhere.jsonl"),
        (["synthesize", "nowhere.json"], "There is no file nowhere.json"),
        (["synthesize", "nowhere.json", "--contrast", "closest-distnt"], "did you mean 'closest-distant'?"),
        (["gate", "nowhere.json", "--max-jsr", "0.1"], "There is no file nowhere.json"),
        (["report", "nowhere.json"], "There is no file nowhere.json"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_user_can_mend_is_one_sentence(
    undersong: Undersong, tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "file").write_text("something")
    studies = {
        "good": STUDY,
        "typo": {**STUDY, "tunning": {}},
        "inner": {**STUDY, "tuning": {"step": [1]}},
        "encoder": {**STUDY, "axes": {"semantic": "tfid"}},
        "circle": {"base": "circle.yaml", "study": "round"},
        "list": ["study"],
    }
    for name, content in studies.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))
    before = sorted(tmp_path.rglob("*"))
    code, out, err = undersong(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("undersong: ")
    assert err.count("\n") == 1
    assert said in err
    assert sorted(tmp_path.rglob("*")) == before  # nothing half-written


def test_no_traceback_from_a_real_process(tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['undersong', 'run', 'nowhere.yaml']; from undersong.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env=os.environ, timeout=1800
    )
    assert done.returncode == 2
    assert done.stderr == "undersong: There is no study file nowhere.yaml; give the path of a YAML file.\n"


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_exits_with_2(undersong: Undersong, verb: str) -> None:
    code, out, err = undersong(verb, "--color")
    assert (code, out) == (2, "")
    assert "--color" in err
    assert "Traceback" not in err


def test_a_closed_disk_is_the_user_s_to_mend_and_other_failures_are_ours(
    undersong: Undersong, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(error: OSError) -> None:
        def load(*_: object) -> None:
            raise error

        monkeypatch.setattr("undersong.study.load.load_studies", load)

    fail(PermissionError(13, "Permission denied", "/vault/results.json"))
    code, _, err = undersong("plan", "study.yaml")
    assert code == 2
    assert err.startswith("undersong: cannot use /vault/results.json: Permission denied; make room, ")
    assert err.count("\n") == 1
    fail(BlockingIOError(11, "busy"))
    with pytest.raises(BlockingIOError):
        undersong("plan", "study.yaml")


@pytest.mark.parametrize("seed", ["4294967296", "99999999999999999999"])
@pytest.mark.parametrize("verb", ["screen", "tune", "probe"])
def test_a_seed_that_numpy_or_torch_would_not_take_is_refused(undersong: Undersong, verb: str, seed: str) -> None:
    code, _, err = undersong(verb, "pool.jsonl", "--seed", seed)
    assert code == 2
    assert "invalid value for '--seed'" in err
    assert "4294967295" in err


def test_compared_models_are_told_apart_in_a_narrow_terminal(undersong: Undersong, tmp_path: Path) -> None:
    verdicts = [{"prompt_id": str(i), "judge": "exact", "harmful": True, "verdict": "refusal"} for i in range(4)]
    names = [f"after-{kind}-of-the-pool-at-25/verdicts.jsonl" for kind in ("closest", "distant")]
    for name in ("before.jsonl", *names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(json.dumps(one) + "\n" for one in verdicts))
    code, out, err = undersong("compare", "before.jsonl", *names)
    assert code == 0, err
    table = out[: out.rindex("┘")].splitlines()
    assert max(map(len, table)) <= 80
    first = "".join(line.split("│")[1].strip() for line in table if line.startswith("│"))
    assert all(name in first for name in names)
    assert "p, Holm" in out


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["before/verdicts.parquet", "after/verdicts.parquet"], ["before", "after"]),
        (["/runs/a/one/v.parquet", "/runs/a/two/v.parquet", "/runs/b/one/v.parquet"], ["a/one", "a/two", "b/one"]),
        (["runs/before.jsonl", "runs/after.jsonl"], ["before.jsonl", "after.jsonl"]),
        (["before.jsonl", "after.jsonl"], ["before.jsonl", "after.jsonl"]),
        (["x/v.jsonl", "x/y/v.jsonl"], ["x", "x/y"]),
        (["v.jsonl", "x/v.jsonl"], ["v.jsonl", "x/v.jsonl"]),
    ],
)
def test_compared_files_are_called_by_what_tells_them_apart(files: list[str], names: list[str]) -> None:
    from undersong.cli.compare import short_file_names

    assert short_file_names([Path(file) for file in files]) == names


WITHOUT_HUB = """
import sys, time
time.sleep = lambda seconds: None  # between the hub's retries
sys.argv = ["undersong", *{arguments!r}]
from undersong.cli import main
main()
"""


DOCTOR = (["doctor", "nobody/nothing"], 2)
JUDGE = (["judge", "said.jsonl", "--judge", "cost:nobody/nothing", "--out", "o"], 2)


@pytest.mark.parametrize(
    ("arguments", "code", "offline"),
    [
        pytest.param(*DOCTOR, "", id="doctor, no network"),
        pytest.param(*DOCTOR, "1", id="doctor, offline", marks=pytest.mark.slow),
        pytest.param(*JUDGE, "", id="judge, no network", marks=pytest.mark.slow),
        pytest.param(*JUDGE, "1", id="judge, offline", marks=pytest.mark.slow),
    ],
)
def test_a_hub_that_cannot_be_reached_is_one_sentence(
    arguments: list[str], code: int, offline: str, tmp_path: Path
) -> None:
    """Without a line for each of the hub's retries."""
    row = {"prompt_id": "p", "prompt": "paint it", "reply": "sure", "set": "s", "harmful": True, "modality": "text"}
    (tmp_path / "said.jsonl").write_text(json.dumps(row | {"system": "plain"}) + "\n")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        endpoint = f"http://127.0.0.1:{closed.getsockname()[1]}"
        environment = os.environ | {"HF_HUB_OFFLINE": offline, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_HUB.format(arguments=arguments)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
    assert done.returncode == code, done.stderr
    (line,) = (done.stdout + done.stderr).splitlines()
    assert "nobody/nothing" in line
    assert "(it is not in the local cache, and the hub cannot be reached); give " in line
