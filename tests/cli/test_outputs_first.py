"""A folder of --out that cannot be written is refused before any model and any data are loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
import yaml
from command_line import run_here

from undersong.models.refs import organism_folder

MODEL = ("--model", "organism:af3")
STUDY = {
    "study": "small", "models": ["organism:af3"], "pool": "organism:pool", "reference": "organism:reference",
    "prompt_sets": {"harm": {"corpus": "organism:test-harm", "harmful": True}}, "axes": {"semantic": "tfidf"},
}  # fmt: skip
PROBED = ("--contrast-harmful", "organism:contrast-harm", "--contrast-benign", "organism:contrast-benign",
          "--held-out-harmful", "organism:test-harm", "--held-out-benign", "organism:test-near")  # fmt: skip
TUNED = str(organism_folder("af3"))  # a whole model stands for what a training saved


@pytest.fixture(autouse=True)
def nothing_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail as soon as a model is loaded, a corpus is read or a package is downloaded."""
    from undersong.corpora import formats, registry
    from undersong.models import load
    from undersong.models.mini import package_weights

    def refuse(what: str) -> Callable[..., NoReturn]:
        def fail(*_arguments: object, **_options: object) -> NoReturn:
            raise AssertionError(f"{what} before the output folder was checked")

        return fail

    monkeypatch.setattr(load, "check_device", refuse("a model was loaded"))  # the first step of every loading
    monkeypatch.setattr(registry, "read_manifest", refuse("data were read"))
    monkeypatch.setattr(formats, "open_manifest", refuse("data were read"))
    monkeypatch.setattr(package_weights, "fetch_base_weights", refuse("packages were downloaded"))
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(STUDY))
    for folder in ("foreign", "foreign/AdvBench"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "note.txt").write_text("mine")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("tune", "organism:pool", *MODEL), "was not written by tune"),
        (("evaluate", "organism:test-harm", *MODEL), "was not written by evaluate"),
        (("judge", "replies.parquet", "--judge", "keyword"), "was not written by judge"),
        (("probe", "adapter", *MODEL, *PROBED), "was not written by probe"),
        (("check", "organism:pool"), "is not a check (it holds AdvBench)"),
        (("screen", "organism:pool", "--harm", "organism:reference"), "is not a screening"),
        (("run", "study.yaml"), "no results of a study"),
        (("run", "study.yaml", "--arm", "base"), "no results of a study"),
        (("plan", "study.yaml", "--register"), "no results of a study"),
        (("demo", "--model", "organism:af3"), "no results of a study"),
        (("verify", *MODEL[1:]), "was not written by evaluate"),
        (("export-adapter", "adapter", *MODEL), "exists already"),
        (("export-eval", "results.json"), "is not empty"),
        (("models", "get", "mini", "--from-packages"), "holds something else than a Mini"),
    ],
    ids=lambda value: " ".join(value[:1]) if isinstance(value, tuple) else "",
)
def test_a_foreign_folder_is_refused_first(command: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = run_here(tmp_path, *command, "--out", "foreign")
    assert done.returncode == 2
    assert said in done.stderr
    assert (tmp_path / "foreign" / "note.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (("tune", "organism:pool", *MODEL), "recipe"),
        (("evaluate", "organism:test-harm", *MODEL), "max_new_tokens"),
    ],
)
def test_a_folder_of_other_settings_is_refused_first(command: tuple[str, ...], option: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    provenance = {"stage": command[0], "config": {option: "other"}, "inputs": {}}
    (tmp_path / "out" / "provenance.json").write_text(json.dumps(provenance))
    done = run_here(tmp_path, *command, "--out", "out")
    assert done.returncode == 2
    assert f"out holds what {command[0]} made with another" in done.stderr


@pytest.mark.parametrize(
    "command", [("audit-adapter", TUNED, *MODEL), ("watch", ".", *MODEL)], ids=lambda value: value[0]
)
def test_measurements_of_other_settings_and_files_are_refused_first(command: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "watch.jsonl").write_text(json.dumps({"checkpoint": "base", "key": {"size": 1}}) + "\n")
    options = ("--harmful", "organism:test-harm", "--modality", "audio", "--max-prompts", "5")
    (tmp_path / "file").write_text("mine")
    for out, said in (("out", "out holds measurements with another"), ("file", "file is a file; give a folder")):
        done = run_here(tmp_path, *command, *options[2:], "--set", "organism:test-harm", "--out", out)
        assert done.returncode == 2
        assert said in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


def test_pages_do_not_replace_other_files_and_are_refused_first(tmp_path: Path) -> None:
    (tmp_path / "notes.html").write_text("mine")
    for command in (("synthesize", "results.json"), ("report", "results.json")):
        done = run_here(tmp_path, *command, "--out", "notes.html")
        assert done.returncode == 2
        assert "notes.html" in done.stderr
        assert "results.json" not in done.stderr  # which is not there, and was not looked for
    assert (tmp_path / "notes.html").read_text() == "mine"


def test_tune_refuses_a_foreign_folder_before_torch_is_imported(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from undersong.cli import main\n"
        f"sys.argv = ['undersong', 'tune', 'organism:pool', '--model', 'organism:af3', '--out', {str(tmp_path)!r}]\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    sys.exit(10 * ('torch' in sys.modules) + int(stop.code))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, "was not written by tune" in done.stderr) == (2, True)
