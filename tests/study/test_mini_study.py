"""studies/mini.yaml and its smaller sisters: what they compare, and that they are planned before anything is made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_mini
from results_factory import run_result

from undersong.cli import main
from undersong.models.mini.assemble import assemble_mini
from undersong.study.arm_selection import arm_rules
from undersong.study.load import load_studies, load_study
from undersong.study.results.contrasts import recipe_contrasts
from undersong.study.schema import Study

STUDIES = Path(__file__).parents[2] / "studies"


def whole() -> Study:
    return load_study(STUDIES / "mini.yaml")


def parts() -> dict[str, Study]:
    return {one.study.removeprefix("mini-small-"): one for one in load_studies(STUDIES / "mini_small.yaml").studies}


def test_what_the_model_never_saw_is_asked_and_over_refusal_beside_it() -> None:
    asked = whole()
    harmful = {name for name, one in asked.prompt_sets.items() if one.harmful}
    assert harmful == {"advbench", "advbench, new voices", "advbench in babble", "jailbreakbench", "strongreject"}
    assert set(asked.prompt_sets) - harmful == {"xstest", "questions", "instructions"}
    assert {"closest", "distant", "random"} == set(asked.selection.kinds)
    assert set(asked.axes.values()) == {
        "text", "logmel", "speaker", "speech:openai/whisper-tiny.en,pad=bucket", "internal"
    }  # fmt: skip


def test_closeness_is_parted_from_what_comes_with_it() -> None:
    """closest - random = (closest - random-alike) + (random-alike - random); near against far at the pool's mood."""
    rules = whole().selection.rules
    assert {name: (rule.keep, rule.match_selection) for name, rule in rules.items()} == {
        "random-alike": ("random:0.15+matched(mood,kind,seconds)", "closest"),
        "closest-matched": ("closest:0.15+matched(mood,kind,seconds)", None),
        "distant-matched": ("distant:0.15+matched(mood,kind,seconds)", None),
    }
    main = parts()["proximity"]
    arms = [
        run_result(
            rule.label,
            [],
            axis=rule.axis,
            fraction=float(rule.selection_rule.amount),
            kind=rule.name,
            rule=None if rule.is_builtin else str(rule.selection_rule),
            harm_set=rule.harm_set,
            train_modality="audio",
        )
        for rule in arm_rules(main)
    ]
    contrasts = list(recipe_contrasts(arms, "semantic", 0.15, "plain", None))
    compared = {(contrast.a.labels["kind"], contrast.b.labels["kind"]) for contrast in contrasts}
    assert {contrast.name for contrast in contrasts} < set(main.answerable_questions)
    assert compared == {
        ("distant", "closest"), ("random", "closest"), ("distant", "random"), ("random-alike", "closest"),
        ("random", "random-alike"), ("random", "closest-matched"), ("random", "distant-matched"),
        ("closest", "closest-matched"), ("distant", "distant-matched"), ("distant-matched", "closest-matched"),
    }  # fmt: skip


def test_nothing_is_left_out_of_training_but_where_that_is_the_question() -> None:
    assert whole().tuning.silent_frame_share is None
    assert [name for name, one in parts().items() if one.tuning.silent_frame_share is not None] == ["frames"]


def test_the_small_one_asks_the_same_in_parts_the_main_one_first() -> None:
    asked, small = whole(), parts()
    assert next(iter(small)) == "proximity"
    assert small["proximity"].selection.rules == asked.selection.rules
    assert small["modality"].tuning.modalities == small["modality"].evaluation.modalities == ("audio", "text")
    assert small["defenses"].defenses == asked.defenses
    assert small["mechanism"].mechanism == asked.mechanism
    other = {"study": "", "tuning": None, "evaluation": None}
    assert small["seeds"].model_copy(update=other) == small["proximity"].model_copy(update=other)
    assert small["proximity"].evaluation.comprehension == asked.evaluation.comprehension
    for name, one in small.items():
        assert one.models == asked.models
        assert one.axes == asked.axes
        assert {key: value.corpus for key, value in one.prompt_sets.items()}.items() <= {
            key: value.corpus for key, value in asked.prompt_sets.items()
        }.items()
        same: dict[str, tuple[int, ...] | None] = {"modalities": (), "seeds": (), "draws": ()}
        if name == "curve":  # the same training, asked on its way
            assert set(asked.tuning.save_steps) < set(one.tuning.save_steps)
            assert max(asked.tuning.save_steps) == max(one.tuning.save_steps)
            same["save_steps"] = asked.tuning.save_steps
        if name == "frames":
            assert one.tuning.silent_frame_share == 0.1
            same["silent_frame_share"] = None
        assert one.tuning.model_copy(update=same) == asked.tuning.model_copy(update=same)
        assert one.tuning.seeds[:3] == (0, 1, 2), name


def test_parts_ask_the_same_so_that_replies_are_made_once() -> None:
    """What replies depend on is the same in all parts but those that ask otherwise."""
    small = parts()
    for name in ("mechanism", "defenses", "axes", "seeds"):
        assert small[name].prompt_sets == small["proximity"].prompt_sets
        alike = small["proximity"].evaluation.model_copy(update={"comprehension": None})
        assert small[name].evaluation == alike


def test_several_models_are_asked_what_one_is() -> None:
    """The main comparison but for the rules and for what was heard, so that the shipped model's runs are made once."""
    several, one = load_study(STUDIES / "mini_models.yaml"), parts()["proximity"]
    for name in ("prompt_sets", "tuning", "pool", "reference", "benign_reference", "axes", "models"):
        assert getattr(several, name) == getattr(one, name), name
    assert several.evaluation == one.evaluation.model_copy(update={"comprehension": None})
    assert several.selection == one.selection.model_copy(update={"rules": several.selection.rules})
    assert not several.selection.rules
    (asked,) = load_studies(STUDIES / "mini_models.yaml", ["models=[mini,out/mini/models/other]"]).studies
    assert asked.models == ("mini", "out/mini/models/other")


@pytest.mark.parametrize("name", ["mini.yaml", "mini_small.yaml", "mini_models.yaml"])
def test_it_can_be_planned_without_corpora(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    only = ["--only", "mini-small-proximity"] if name == "mini_small.yaml" else []
    command = ["undersong", "plan", "--offline", str(STUDIES / name), *only]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "undersong: mini is not assembled on this machine; run `undersong models get mini`.\n"
    )
    bases = tiny_mini.save_bases(tmp_path)
    parts = tiny_mini.parts(tmp_path / "parts", tmp_path, adapters=False)
    assemble_mini("mini", *map(str, bases), parts, tmp_path / "mini")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "semantic/closest/0.15/audio" in said
    assert ("semantic/closest-matched/audio" in said) == (name != "mini_models.yaml")
    assert "independent draws a contrast" in said
