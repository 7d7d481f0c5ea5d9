"""A study whose arms are kept by rules, measured to two harm sets and beside harmless speech."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from undersong.proximity.rules import parse_rule
from undersong.proximity.selection import Selection
from undersong.research.results.variance import _distinct_trainings
from undersong.stages.training import StudyArm
from undersong.study.load import parse_study
from undersong.study.planning.plan import plan_study
from undersong.study.planning.power import count_recipe_contrasts, design_lines, independent_units
from undersong.study.results.records import RunRecord
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.types import UndersongError

RULES: dict[str, Any] = {
    "sounds-like": {"axis": "acoustic", "keep": "closest:0.25+within(semantic:3)"},
    "sounds-unlike": {"axis": "acoustic", "keep": "distant:0.25+within(semantic:3)"},
    "few-of-each": {"axis": "semantic", "keep": "closest:40+group<=1", "harm_set": "other"},
    "far-alike": {"axis": "semantic", "keep": "distant:0.15+matched(object)", "match_selection": "few-of-each"},
}
DATA: dict[str, Any] = {
    "study": "rules",
    "models": ["organism:af3"],
    "pool": "organism:pool",
    "reference": {"main": "organism:reference", "other": "organism:contrast-harm"},
    "benign_reference": "organism:test-far",
    "prompt_sets": {
        "harm": {"corpus": "organism:unseen-harm", "harmful": True},
        "benign": {"corpus": "organism:unseen-benign"},
    },
    "axes": {"semantic": "tfidf", "acoustic": "logmel"},
    "selection": {
        "axes": ["acoustic"],
        "kinds": ["closest", "random"],
        "fractions": [0.25],
        "rules": RULES,
        "filters": {"speaker": ["A", "E"]},
    },
    "tuning": {"modalities": ["audio"], "seeds": [0, 1], "draws": [0, 1], "save_steps": [2]},
    "evaluation": {
        "modalities": ["audio"],
        "system_prompts": {"plain": "you are a helpful assistant"},
        "max_new_tokens": 12,
    },
}


def study(**changes: Any) -> Study:
    return parse_study({**DATA, **changes}, "test")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rules") / "out"


@pytest.fixture(scope="module")
def results(out: Path) -> dict[str, Any]:
    planned = plan_study(study(), out / "store")
    assert "upper limits until the pool is screened" in planned.summary
    run_audit(study(), out)
    again = plan_study(study(), out / "store")
    assert again.summary.startswith("All ")
    return json.loads((out / "results.json").read_text())


def test_each_rule_is_an_arm_of_its_name(results: dict[str, Any]) -> None:
    arms = {one["arm"]: one for one in results["runs"] if one["kind"] != "base"}
    assert set(arms) == {
        "acoustic/closest/0.25/audio",
        "acoustic/random/0.25/audio",
        "acoustic/sounds-like/audio",
        "acoustic/sounds-unlike/audio",
        "semantic/few-of-each/audio",
        "semantic/far-alike/audio",
    }
    assert arms["acoustic/sounds-like/audio"]["rule"] == str(parse_rule(RULES["sounds-like"]["keep"]))
    assert arms["acoustic/closest/0.25/audio"]["rule"] is None


def test_selections_say_their_rule_and_keep_it(results: dict[str, Any]) -> None:
    chosen = {one["kind"]: one for one in results["selections"]}
    few = chosen["few-of-each"]
    assert few["harm_set"] == "other"
    assert few["k"] <= 40
    assert few["rule"] == "closest:40+group<=1"
    assert few["diversity"]["selection"]["groups"] == few["k"] <= few["diversity"]["pool"]["groups"]
    for one in results["selections"]:
        assert 0 < one["diversity"]["selection"]["texts"] <= min(one["k"], one["diversity"]["pool"]["texts"])
        tie = one["cut_tie"]
        assert tie is None or (one["kind"] != "random" and 0 < tie["selected"] < tie["tied"])
    like = chosen["sounds-like"]
    assert like["residual_imbalance"]["other_axis"] == "semantic"
    # What is close in sound within thirds of the words' distance is no longer close in words as well.
    plain = chosen["closest"]
    assert like["jaccard_with_closest"]["semantic"] <= plain["jaccard_with_closest"]["semantic"] + 0.05
    assert chosen["random"]["draw"] is not None


def test_one_rule_takes_the_shares_of_another(results: dict[str, Any]) -> None:
    chosen = {one["kind"]: one for one in results["selections"]}
    few, alike = (chosen[name]["balance"]["object"] for name in ("few-of-each", "far-alike"))
    assert any("Shares are those of another selection" in note for note in chosen["far-alike"]["notes"])
    apart = [abs(few[value]["share_selected"] - alike[value]["share_selected"]) for value in few.keys() & alike.keys()]
    assert max(apart) < 0.1


def test_rules_are_set_against_random_and_against_each_other(results: dict[str, Any]) -> None:
    questions = {one["question"] for one in results["comparisons"] if one["scope"] == "recipe"}
    at = "(acoustic at 0.25, trained on audio)?"
    assert f"Does sounds-like data break more than random data {at}" in questions
    assert f"Does sounds-like data break more than closest data without its conditions {at}" in questions
    assert f"Does sounds-like data break more than sounds-unlike data {at}" in questions
    assert not any("sounds-unlike data break more than sounds-like" in question for question in questions)


def test_the_plan_knows_the_family_and_the_units(results: dict[str, Any]) -> None:
    assert count_recipe_contrasts(study()) == sum(one["scope"] == "recipe" for one in results["comparisons"])
    units = {one["n"] for one in results["comparisons"] if one["scope"] == "recipe"}
    assert units == {independent_units(study())[1]}
    assert independent_units(study(models=["organism:af3", "organism:kimi"])) == ("base", 2)
    one = study(tuning={**DATA["tuning"], "seeds": [0], "draws": [0]})
    assert "no interval and no test" in design_lines(one)[0]
    assert [line.split(" points")[0].strip() for line in design_lines(study(), 0.3)[2:]] == ["30"]
    lines = design_lines(study())
    assert len(lines) == 6
    assert lines[3].split()[:4] == ["5", "points", "58", "points"]


def test_every_axis_is_measured_to_every_harm_set(results: dict[str, Any]) -> None:
    assert [(one["axis"], one["harm_set"]) for one in results["screening"]] == [
        (axis, name) for axis in ("semantic", "acoustic") for name in ("main", "other")
    ]
    pairs = {(one["corpus_a"], one["corpus_b"]) for one in results["corpus_overlap"]}
    assert all("reference" not in (a, b) for a, b in pairs)


def test_the_screening_score_stands_beside_what_it_foretold(results: dict[str, Any]) -> None:
    assert [one["axis"] for one in results["screening_scores"]] == ["semantic", "acoustic"]
    for one in results["score_vs_jsr"]:
        assert one["n"] == len(one["points"]) == 7  # six arms, of which random has a selection a draw
        hashes = {point["arm"] for point in one["points"]}
        assert "acoustic/closest/0.25/audio" in hashes
        value = one["spearman"]["value"]
        assert value is None or -1 <= value <= 1
    closest = {
        (one["axis"], point["arm"]): point["score"] for one in results["score_vs_jsr"] for point in one["points"]
    }
    assert closest["acoustic", "acoustic/closest/0.25/audio"] > closest["acoustic", "acoustic/sounds-unlike/audio"]


def test_slips_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    def rules(**rule: Any) -> Study:
        return study(selection={**DATA["selection"], "rules": {"mine": rule}})

    with pytest.raises(UndersongError, match="'sounds' is not one of semantic, acoustic"):
        rules(axis="sounds", keep="closest:0.25")
    with pytest.raises(UndersongError, match="'others' is not one of main, other; did you mean 'other'"):
        rules(axis="acoustic", keep="closest:0.25", harm_set="others")
    with pytest.raises(UndersongError, match="'closest' cannot be the name of a rule"):
        study(selection={"rules": {"closest": {"axis": "acoustic", "keep": "closest:0.25"}}})
    with pytest.raises(UndersongError, match="columns: 'organism:pol' is not one of organism:pool"):
        study(columns={"organism:pol": {"text": "words"}})
    with pytest.raises(UndersongError, match="screening score cannot be centered"):
        study(proximity={"center": True})
    with pytest.raises(UndersongError, match="'mine' is not one of closest, random"):
        rules(axis="acoustic", keep="closest:0.25+matched(speaker)", match_selection="mine")
    for axis, fraction, to in (("semantic", 0.25, "main"), ("acoustic", 0.5, "main"), ("acoustic", 0.25, "other")):
        keep, none = f"random:{fraction}+matched(speaker)", f"keeps {fraction} of axis {axis} by {to}"
        with pytest.raises(UndersongError, match=f"to be like closest, and no such arm {none}"):
            run_audit(rules(axis=axis, keep=keep, harm_set=to, match_selection="closest"), tmp_path / "out")
    for wrong, message in (("closest:0.25+near(x)", "is not a modifier"), ("closest:0.25+within(acoustic)", "itself")):
        with pytest.raises(UndersongError, match=message):
            run_audit(rules(axis="acoustic", keep=wrong), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_random_samples_like_the_closest_part_closeness_from_what_comes_with_it(
    results: dict[str, Any], out: Path, tmp_path: Path
) -> None:
    """They have the closest's own shares of objects, at another draw each; and closest is compared with them.

    On the store of the other study, which has all else.
    """
    rule = {"axis": "acoustic", "keep": "random:0.25+matched(object)", "match_selection": "closest"}
    finished = run_audit(
        study(selection={**DATA["selection"], "rules": {"alike": rule}}), tmp_path / "out", out / "store"
    )
    assert finished.results["runs"][0] == results["runs"][0]
    chosen = {(one["kind"], one["draw"]): one for one in finished.results["selections"]}
    assert chosen["alike", 0]["selection_hash"] != chosen["alike", 1]["selection_hash"]
    shares = [
        {value: entry["share_selected"] for value, entry in chosen[key]["balance"]["object"].items()}
        for key in (("closest", None), ("alike", 0), ("alike", 1))
    ]
    assert shares[0] == shares[1] == shares[2]
    told = {one["question"].partition(" (")[0] for one in finished.results["comparisons"] if one["scope"] == "recipe"}
    assert told >= {
        "Does closest data break more than alike data",
        "Does alike data break more than random data",
        "Does closest data break more than random data",
    }


def test_columns_of_a_corpus_are_mapped(tmp_path: Path) -> None:
    """A pool whose text is called otherwise; one that has no such column is told so."""
    from undersong.stages.context import RunContext
    from undersong.stages.corpus import load_corpus
    from undersong.store.store import Store

    file = tmp_path / "pool.jsonl"
    file.write_text("".join(json.dumps({"id": str(i), "said": f"word {i}"}) + "\n" for i in range(3)))
    shop = RunContext(Store(tmp_path / "store"))
    corpus = load_corpus(shop, str(file), columns={"text": "said"})
    assert [sample.text for sample in corpus.samples] == ["word 0", "word 1", "word 2"]
    with pytest.raises(UndersongError, match="has audio or text; it has the columns said"):
        load_corpus(shop, str(file))
    with pytest.raises(UndersongError, match="'spoken'"):
        load_corpus(shop, str(file), columns={"text": "spoken"})


def test_run_noise_is_of_the_same_samples_with_other_seeds(results: dict[str, Any]) -> None:
    (noise,) = results["run_noise"]
    same = [one for one in results["runs"] if one["kind"] not in ("base", "random")]
    groups: dict[str, list[float]] = {}
    for one in same:
        groups.setdefault(one["selection_hash"], []).append(
            next(e["rate"] for e in one["rates"] if e["prompt_set"] == "harm")
        )
    assert noise["groups"] == len(groups)  # random samples differ by draw, so they are no replicates
    assert noise["df"] == len(groups)  # two seeds each
    wanted = (sum((a - b) ** 2 / 2 for a, b in groups.values()) / len(groups)) ** 0.5
    assert noise["sd"] == pytest.approx(wanted)


def test_damage_is_set_against_nearness_on_every_axis(results: dict[str, Any]) -> None:
    (found,) = results["proximity_vs_jsr"]
    assert found["points"] == 7
    assert found["replicates"] == 12  # random has other samples in each draw
    assert [one["name"] for one in found["predictors"]] in ([], ["semantic", "acoustic"])
    assert found["predictors"] or "does not vary" in found["note"] or "too few" in found["note"]


def test_the_spread_of_runs_is_split(results: dict[str, Any]) -> None:
    (found,) = results["variance_components"]
    parts = {one["name"]: one for one in found["components"]}
    assert list(parts) == ["base", "selection", "base x selection", "draw", "seed", "prompt"]
    tuned = [one for one in results["runs"] if one["kind"] != "base"]
    assert found["runs"] == len({(one["selection_hash"], one["seed"]) for one in tuned})
    assert found["n"] == next(e["n"] for e in tuned[0]["rates"] if e["prompt_set"] == "harm")
    assert parts["base"]["sd"] is None
    assert "same base" in parts["base"]["note"]
    (noise,) = results["run_noise"]
    assert parts["seed"]["sd"] == pytest.approx(noise["sd"])  # the same mean square of the same replicates
    assert parts["seed"]["df"] == noise["df"]
    assert parts["draw"]["sd"] is None  # random samples differ with the seed here, so the two cannot be told apart
    assert "draw and seed cannot be separated" in parts["draw"]["note"]


def test_equal_trainings_are_split_once() -> None:
    """An arm on another's samples is the other, as long as it lasts."""

    def run(kind: str, ids: str, seed: int) -> Any:
        chosen = Selection("a", "nearest", kind, 0.25, 1, None, (ids,), ids)
        return RunRecord(
            StudyArm("m", 0, "a", kind, 0.25, seed=seed, selection=chosen), 1, None, *([cast("Any", None)] * 2)
        )

    found = _distinct_trainings(
        [run("closest", "x", 0), run("closest", "x", 1), run("rule", "x", 0), run("rule", "y", 1)]
    )
    assert [(label.selection, label.draw, label.seed) for label in found] == [
        (("a", "closest", 0.25, "", ""), "x", 0), (("a", "closest", 0.25, "", ""), "x", 1),
        (("a", "rule", 0.25, "", ""), "y", 1),
    ]  # fmt: skip
