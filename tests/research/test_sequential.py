"""Seeds that are added until the question is answered: what is run, what is said, and that nothing is run twice."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pages import page
from tiny_study import tiny_study

from undersong.cli import main
from undersong.research import sequential_seeds as sequential
from undersong.results.schema import parse_results
from undersong.stages.training import training_recipe
from undersong.study.json_schema import study_json_schema
from undersong.study.load import parse_study
from undersong.study.planning.power import design_lines
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

KINDS = {"kinds": ["closest"], "fractions": [0.25]}


def tiny(**rule: Any) -> Study:
    return parse_study(tiny_study(KINDS, seeds={"from": 3, "to": 5} | rule), "tiny")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[str]]:
    """A run that stops at once, because one step of training moves nothing: folder, results and progress lines."""
    out, lines = tmp_path_factory.mktemp("sequential") / "out", []
    results = run_audit(tiny(), out, say=lines.append).results
    return out, results, lines


def test_seeds_end_when_more_are_futile(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    _, content, lines = finished
    found = parse_results(content).sequential
    assert found is not None
    assert [one.decision for one in found.looks][-1] == "futile"
    ended_at = found.looks[-1].seeds
    assert [one.seeds for one in found.looks] == list(range(3, ended_at + 1))
    assert ended_at < 5
    assert content["study"]["seeds"] == list(range(ended_at))
    assert {run["seed"] for run in content["runs"] if run["kind"] == "closest"} == set(range(ended_at))
    assert any(f"{ended_at} seeds: closest-base" in line for line in lines)
    assert f"ended at {ended_at} of at most 5: more seeds are futile" in content["notes"][0]


def test_the_same_study_again_makes_nothing(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, content, _ = finished
    adapters = sorted((out / "store" / "adapter").iterdir())
    again = run_audit(tiny(), out)
    assert again.result_hash == content["provenance"]["result_hash"]
    assert sorted((out / "store" / "adapter").iterdir()) == adapters


def test_seeds_go_on_until_the_difference_is_shown(
    finished: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def differences(results: Any, *_: str) -> dict[int, float]:
        return {seed: 0.5 + 0.001 * seed for seed in results.study.seeds}

    monkeypatch.setattr(sequential, "_differences_by_seed", differences)
    results = run_audit(tiny(to=7), tmp_path / "out", finished[0] / "store").results
    looks = results["sequential"]["looks"]
    assert [(one["seeds"], one["decision"]) for one in looks] == [(3, "open"), (4, "open"), (5, "open"), (6, "shown")]
    assert looks[-1]["low"] > 0


def test_results_of_listed_seeds_hold_no_looks() -> None:
    from results_factory import make_rate, make_results, make_run

    content = parse_results(make_results([make_run("base", [make_rate(0.1)])])).content
    assert "sequential" not in content


def test_a_contrast_that_is_not_measured_stops_with_a_sentence(
    finished: tuple[Path, dict[str, Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "cell_differences", lambda *_: [])
    with pytest.raises(UndersongError, match="does not measure closest-base on audio prompts"):
        run_audit(tiny(), tmp_path / "out", finished[0] / "store")


def test_the_rule_on_the_page_can_be_read() -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page("several-studies"), re.S)
    rule = yaml.safe_load(block)["tuning"]["seeds"]
    study = parse_study(tiny_study({"kinds": ["closest", "random"]}, seeds=rule), "page")
    assert study.tuning.sequential_seeds is not None
    assert (study.tuning.sequential_seeds.first, len(study.tuning.seeds)) == (3, 20)


def test_a_plan_says_that_counts_are_the_largest() -> None:
    (line,) = design_lines(tiny())
    assert "from 3 to at most 5, until closest-base is shown or futile" in line


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"from": 2}, r"seeds\.from"),
        ({"to": 3}, r"to \(3\) is not above from"),
        ({"form": 3}, "did you mean 'from'"),
        ({"contrast": "closest-distant"}, "'distant' is not one of closest"),
        ({"modality": "text"}, "'text' is not one of audio"),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        tiny(**rule)


def test_several_models_have_no_sequential_seeds() -> None:
    study = tiny_study(KINDS, seeds={"from": 3, "to": 5}) | {"models": ["organism:af3", "organism:qwen"]}
    with pytest.raises(UndersongError, match="the models are the units"):
        parse_study(study, "tiny")


def test_a_study_keeps_its_rule_when_it_is_written_and_read() -> None:
    study = tiny()
    assert study.tuning.seeds == study.tuning.draws == (0, 1, 2, 3, 4)
    assert parse_study(study.model_dump(mode="json"), "again") == study
    listed = parse_study(tiny_study(KINDS, seeds=[0], draws=[0]), "tiny")
    assert "sequential_seeds" not in listed.model_dump(mode="json")["tuning"]


def test_the_rule_is_no_part_of_a_training() -> None:
    listed = parse_study(tiny_study(KINDS, seeds=[0], draws=[0]), "tiny")
    assert training_recipe(tiny().tuning) == training_recipe(listed.tuning)


def test_the_schema_offers_the_rule_as_seeds() -> None:
    tuning = study_json_schema()["$defs"]["TuningSettings"]["properties"]
    assert {"$ref": "#/$defs/SequentialSeeds"} in tuning["seeds"]["anyOf"]
    assert "sequential_seeds" not in tuning


def test_arms_are_not_run_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(tiny_study(KINDS, seeds={"from": 3, "to": 5})))
    monkeypatch.setattr(sys, "argv", ["undersong", "run", str(file), "--arm", "base"])
    with pytest.raises(SystemExit):
        main()
    assert "decides after each seed whether to go on" in capsys.readouterr().err


def test_the_report_tells_where_the_seeds_ended(finished: tuple[Path, dict[str, Any], list[str]]) -> None:
    out, content, _ = finished
    assert json.loads((out / "results.json").read_text())["sequential"] == content["sequential"]
    assert "Seeds were added one at a time" in (out / "report.md").read_text()
