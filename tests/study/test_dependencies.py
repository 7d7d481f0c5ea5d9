"""What an axis needs and this machine lacks is told by `plan`, and before `run` makes anything."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from tiny_study import tiny_study

from undersong.cli import main
from undersong.encoders import speaker, text
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.stages.context import RunContext
from undersong.store.store import Store
from undersong.study.load import parse_study
from undersong.study.planning.dependencies import check_dependencies
from undersong.study.planning.plan import plan_study, study_status
from undersong.study.planning.planning_store import plan_artifacts
from undersong.study.run import run_arm, run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder on a machine without sentence-transformers and resemblyzer."""
    for module in (text, speaker):
        monkeypatch.setattr(module, "find_spec", lambda _name: None)
    (tmp_path / "minilm").mkdir()
    (tmp_path / "minilm" / "config.json").write_text("{}")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def study(**axes: str) -> Study:
    return parse_study({**tiny_study({}), "axes": {"semantic": "tfidf", **axes}}, "tiny")


MEANING = {"meaning": "text:../minilm"}
CLONE = "in the clone of undersong."
SENTENCE = f"Axis meaning: The encoder text:../minilm needs sentence-transformers; pip install -e '.[encoders]' {CLONE}"


def test_a_package_that_is_not_here_is_told_before_anything_is_made(folder: Path) -> None:
    assert plan_study(study(**MEANING), folder / "store").missing_packages == (SENTENCE,)
    for made in (
        lambda: run_audit(study(**MEANING), folder / "out"),
        lambda: run_arm(study(**MEANING), "base", folder / "out", folder / "out" / "store"),
    ):
        with pytest.raises(UndersongError) as caught:
            made()
        assert str(caught.value) == SENTENCE
    assert list(folder.iterdir()) == []


JUDGES = {
    "wer": "Judge wer: Counting word errors needs jiwer; run: pip install -e '.[utility]' in the clone of undersong.",
    "refusal+minilm:../minilm": "Judge refusal+minilm: The encoder text:../minilm needs sentence-transformers; pip "
    "install -e '.[encoders]' in the clone of undersong.",
    "llm:some/model@http://localhost:9/secret/v1": "Judge llm: The served model some/model needs the openai "
    "package; run pip install -e '.[served]' in the clone of undersong.",
}


@pytest.mark.parametrize("judge", JUDGES)
def test_so_are_those_that_a_judge_needs(folder: Path, monkeypatch: pytest.MonkeyPatch, judge: str) -> None:
    for package in ("jiwer", "openai"):
        monkeypatch.setitem(sys.modules, package, None)
    plain = tiny_study({})
    if judge == "wer":
        plain["prompt_sets"]["calm"] = {"corpus": "organism:test-near", "harmful": False, "judge": judge}
    else:
        plain["evaluation"] = {**plain.get("evaluation", {}), "extra_judges": [judge]}
    asked = parse_study({**plain, "axes": {"semantic": "tfidf"}}, "tiny")
    assert plan_study(asked, folder / "store").missing_packages == (JUDGES[judge],)
    with pytest.raises(UndersongError) as caught:
        run_audit(asked, folder / "out")
    assert str(caught.value) == JUDGES[judge]
    assert list(folder.iterdir()) == []
    for package in ("jiwer", "openai"):
        monkeypatch.setitem(sys.modules, package, sys)
    monkeypatch.setattr(text, "find_spec", lambda _name: object())
    assert plan_study(asked, folder / "store").missing_packages == ()


def test_and_a_served_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    asked = parse_study(
        {
            **tiny_study({}),
            "models": ["served:some/model@http://localhost:9/v1"],
            "evaluation": tiny_study({})["evaluation"] | {"refusal_texts": ["no"]},
            "axes": {"semantic": "tfidf"},
        },
        "tiny",
    )
    said = f"Models: The served model some/model needs the openai package; run pip install -e '.[served]' {CLONE}"
    assert plan_study(asked, folder / "store").missing_packages == (said,)


def test_the_verbs_tell_it(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    axes = {"semantic": "tfidf", **MEANING}
    (folder / "tiny.yaml").write_text(yaml.safe_dump({**tiny_study({}), "axes": axes}, sort_keys=False))
    for verb, code in (("plan", 0), ("run", 2)):
        monkeypatch.setattr(sys, "argv", ["undersong", verb, "tiny.yaml"])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert (stopped.value.code or 0) == code
        seen = capsys.readouterr()
        if verb == "plan":
            assert f"\n{SENTENCE}\n" in seen.out
        else:
            assert seen.err == f"undersong: {SENTENCE}\n"


def test_a_package_that_is_here_is_not_spoken_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text, "find_spec", lambda _name: object())
    assert plan_study(study(**MEANING), folder / "store").missing_packages == ()


def test_vectors_that_are_in_the_store_need_no_package(folder: Path) -> None:
    asked = study(**MEANING)
    ledger, shop = plan_artifacts(asked, folder / "store", DEFAULT_LOAD_OPTIONS), RunContext(Store(folder / "store"))
    theirs = [one for one in ledger.planned.values() if one.stage == "embeddings" and one.encoder == "text:../minilm"]
    assert len(theirs) == 2
    for one in theirs:
        with pytest.raises(UndersongError, match="Axis meaning"):
            check_dependencies(asked, shop)
        one.expected.location.mkdir(parents=True)
        (one.expected.location / "provenance.json").write_text(
            json.dumps({"hash": one.expected.hash, "cpu_seconds": 1.0})
        )
    check_dependencies(asked, shop)
    assert plan_study(asked, folder / "store").missing_packages == ()
    shutil.rmtree(theirs[0].expected.location)
    assert plan_study(asked, folder / "store").missing_packages == (SENTENCE,)


def test_weights_that_the_store_cannot_be_asked_without_are_told_with_their_axis(folder: Path) -> None:
    said = "Axis voices: The encoder speaker needs the weights of the package resemblyzer; pip install"
    for ask in (plan_study, study_status):
        with pytest.raises(UndersongError, match=said):
            ask(study(voices="speaker"), folder / "store")
    (line,) = plan_study(study(voices="speaker"), folder / "store", unread=True).missing_packages
    assert line.startswith(said)
    for spec in ("whisper:nowhere", "speech:nowhere"):
        with pytest.raises(UndersongError, match="Axis mixed: There is no model folder 'nowhere'"):
            run_audit(study(mixed=spec), folder / "out")
    assert list(folder.iterdir()) == []
