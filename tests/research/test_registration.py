"""A registration before a run: what it knows of the store, and what the results say after it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import tiny_study

from undersong.cli import main
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS, LoadOptions
from undersong.report.page import render_html
from undersong.research.registration import (
    check_registration,
    read_registration,
    register_study,
    write_registration,
)
from undersong.research.report.registration import question_status_text, registration_sentences
from undersong.results.schema import Results, parse_results
from undersong.results.schema_registration import Registration
from undersong.study.load import parse_study
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

WHEN = "2026-01-02T03:04:05Z"
KINDS = {"kinds": ["closest", "random"], "fractions": [0.25]}


def content(**tuning: Any) -> dict[str, Any]:
    """Seven comparisons: three of arms and bases, one of system prompts, and three of models."""
    study = tiny_study(KINDS, **({"seeds": [0], "draws": [0]} | tuning))
    study["evaluation"]["system_prompts"] = {"plain": None, "safe": "Refuse whatever is harmful."}
    return study | {"system_defense": "safe"}


def tiny(**tuning: Any) -> Study:
    return parse_study(content(**tuning), "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output folder of a study that was registered and then run."""
    out = tmp_path_factory.mktemp("registered") / "out"
    registration = register_study(tiny(), out / "store", DEFAULT_LOAD_OPTIONS, WHEN)
    write_registration(registration, out / "registration.json")
    run_audit(tiny(), out)
    return out


@pytest.fixture(scope="module")
def registration(folder: Path) -> Registration:
    return read_registration(folder / "registration.json")


@pytest.fixture(scope="module")
def results(folder: Path) -> Results:
    return parse_results(json.loads((folder / "results.json").read_text()))


def test_every_comparison_of_the_results_was_registered_before_its_answer(results: Results) -> None:
    assert results.provenance is not None
    found = results.provenance.registration
    assert found is not None
    assert (found.created, found.intact, found.changes, found.rule_changes) == (WHEN, True, [], [])
    assert [status.id for status in found.questions] == [comparison.id for comparison in results.comparisons]
    assert [comparison.scope for comparison in results.comparisons] == ["recipe"] * 4 + ["model"] * 3
    assert all((status.registered, status.known) == (True, "none") for status in found.questions)
    families = [comparison.family for comparison in results.comparisons]
    assert [status.family for status in found.questions] == families
    assert families.count("primary") == 1


def test_a_registration_holds_no_question_twice_and_none_that_is_not_asked(
    registration: Registration, results: Results
) -> None:
    assert sorted(question.id for question in registration.questions) == sorted(c.id for c in results.comparisons)
    wording = {question.id: question.question for question in registration.questions}
    assert all(wording[comparison.id].startswith(comparison.question) for comparison in results.comparisons)


def test_a_registration_is_no_part_of_the_result_hash(results: Results, folder: Path, tmp_path: Path) -> None:
    assert results.provenance is not None
    again = run_audit(tiny(), tmp_path / "other", folder / "store")
    assert again.result_hash == results.provenance.result_hash
    assert again.results["provenance"]["registration"] is None


def test_the_runs_of_the_results_name_their_adapters(results: Results) -> None:
    assert results.provenance is not None
    adapters = results.provenance.run_adapters
    assert [adapter is None for adapter in adapters] == [run.kind == "base" for run in results.runs]
    assert len(set(adapters)) == len(results.runs)


def test_answers_in_the_store_are_known_in_whole_or_in_part(folder: Path, results: Results) -> None:
    later = register_study(tiny(), folder / "store", DEFAULT_LOAD_OPTIONS, WHEN)
    assert all(question.known == question.answers > 0 for question in later.questions)
    assert len(later.known_verdicts) == 3  # base, closest and random
    more_seeds = register_study(tiny(seeds=[0, 1], draws=[0, 1]), folder / "store", DEFAULT_LOAD_OPTIONS, WHEN)
    recipes = [(question.known, question.answers) for question in more_seeds.questions if question.scope == "recipe"]
    assert sorted(recipes) == [(1, 2), (2, 3), (2, 3), (2, 4)]  # system prompts, two arms against the base, two arms
    found = check_registration(more_seeds, tiny(), DEFAULT_LOAD_OPTIONS, results)
    texts = [question_status_text(found, status.id) for status in found.questions]
    assert texts[:2] == [
        "registered as primary when the store held a part of its answer",
        "registered when the store held a part of its answer",
    ]
    assert set(texts[4:]) == {"registered when the store held its answer"}


def test_a_study_that_changed_says_what(registration: Registration, results: Results) -> None:
    found = check_registration(registration, tiny(batch_size=1), LoadOptions(dtype="bfloat16"), results)
    assert found.changes == ["tuning.batch_size: 2, now 1", "loading.dtype: float32, now bfloat16"]
    text = " ".join(registration_sentences(found))
    assert "The study was changed after registration: tuning.batch_size: 2, now 1;" in text


def test_a_question_that_was_not_registered_is_said_to_be(registration: Registration, results: Results) -> None:
    fewer = registration.model_copy(update={"questions": registration.questions[1:]})
    found = check_registration(fewer, tiny(), DEFAULT_LOAD_OPTIONS, results)
    assert question_status_text(found, results.comparisons[0].id) == "not registered"
    assert not found.intact


def test_an_edited_file_proves_nothing(folder: Path, results: Results, tmp_path: Path) -> None:
    content = json.loads((folder / "registration.json").read_text())
    content["created"] = "2020-01-01T00:00:00Z"
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(content))
    found = check_registration(read_registration(file), tiny(), DEFAULT_LOAD_OPTIONS, results)
    assert not found.intact
    assert "edited after it was written" in " ".join(registration_sentences(found))


def test_other_rules_are_said(registration: Registration, results: Results) -> None:
    rules = registration.rules.model_copy(update={"significance": 0.1})
    found = check_registration(registration.model_copy(update={"rules": rules}), tiny(), DEFAULT_LOAD_OPTIONS, results)
    assert found.rule_changes == ["significance: 0.1, now 0.05"]


def test_a_key_that_a_later_version_adds_is_no_change(registration: Registration, results: Results) -> None:
    older = {key: value for key, value in registration.config.items() if key != "safety_limits"}
    found = check_registration(registration.model_copy(update={"config": older}), tiny(), DEFAULT_LOAD_OPTIONS, results)
    assert found.changes == []


def test_the_report_tells_the_registration(folder: Path) -> None:
    page = render_html(json.loads((folder / "results.json").read_text()))
    assert f"Registered on {WHEN}" in page
    assert "The study is unchanged since." in page
    assert page.count("registered before any answer") == 6
    assert page.count("registered as primary before any answer") == 1
    assert "Of 7 comparisons, 7 were registered" in (folder / "report.md").read_text()


def test_the_primary_questions_are_registered_as_declared(folder: Path, results: Results) -> None:
    study = parse_study(content() | {"analysis": {"primary": ["closest-random"]}}, "tiny")
    registered = register_study(study, folder / "store", DEFAULT_LOAD_OPTIONS, WHEN)
    assert registered.primary == ["closest-random"]
    found = check_registration(registered, study, DEFAULT_LOAD_OPTIONS, results)
    assert "Registered as primary: closest-random." in registration_sentences(found)
    (primary,) = [question for question in registered.questions if question.family == "primary"]
    assert primary.question.startswith("Does closest data break more than random data")
    assert [status.id for status in found.questions if status.family == "primary"] == [primary.id]


@pytest.mark.parametrize("content", [None, "{}", '{"schema_version": "undersong-registration/9"}'])
def test_what_is_no_registration_is_refused(content: str | None, tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UndersongError, match=r"no registration .*plan"):
        read_registration(file)


def test_the_commands_register_once_and_find_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(content()))
    file, store = tmp_path / "r.json", folder / "store"

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["undersong", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        printed = capsys.readouterr()
        return int(stopped.value.code or 0), printed.out, printed.err

    planned = ("plan", study, "--store", store, "--registration", file)
    code, out, _ = call(*planned, "--register")
    assert code == 0
    assert "registered 7 questions, 7 of them with an answer in the store" in out
    assert read_registration(file).digest in out
    code, _, err = call(*planned, "--register")
    assert code == 2
    assert "a registration is never written again" in err
    assert "only with --register" in call(*planned)[2]
    beside = tmp_path / "out" / "registration.json"
    beside.parent.mkdir()
    shutil.copyfile(file, beside)
    here = ("--store", store, "--out", tmp_path / "out")
    for verb in ("plan", "status"):
        assert f"The study is as registered in {beside}" in call(verb, study, *here)[1]
        out = call(verb, study, *here, "--override", "tuning.batch_size=1")[1]
        assert f"The study differs from its registration {beside} (" in out
        assert "tuning.batch_size: 2, now 1; the results will say so." in out
    changed = call("run", study, *here, "--arm", "base", "--override", "tuning.batch_size=1")
    assert "tuning.batch_size: 2, now 1" in changed[2]
    code, out, _ = call("run", study, "--store", store, "--registration", file, "--out", tmp_path / "out")
    assert code == 0
    assert "at that time the store held the answer to 7 of them" in out
