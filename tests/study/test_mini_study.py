"""studies/mini.yaml and its smaller sister: what they compare, and that they can be planned before anything is made."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import tiny_mini

from undersong.cli import main
from undersong.models.mini.assemble import assemble
from undersong.study import Study, load_study

STUDIES = Path(__file__).parents[2] / "studies"


def study(name: str) -> Study:
    return load_study(STUDIES / name)


def test_what_the_model_never_saw_is_asked_and_over_refusal_beside_it() -> None:
    whole = study("mini.yaml")
    harmful = {name for name, one in whole.sets.items() if one.harmful}
    assert harmful == {"advbench", "advbench, new voices", "jailbreakbench", "strongreject"}
    assert set(whole.sets) - harmful == {"xstest", "questions", "instructions"}
    assert {"closest", "distant", "random"} == set(whole.selection.kinds)
    assert set(whole.axes.values()) == {"text", "logmel", "speech:openai/whisper-tiny.en", "internal"}


def test_proximity_is_asked_with_mood_source_and_length_held_level() -> None:
    rules = study("mini.yaml").selection.rules
    assert {rule.keep for rule in rules.values()} == {
        f"{kind}:0.15+matched(mood,kind,seconds)" for kind in ("closest", "distant")
    }


def test_the_small_one_is_the_same_question() -> None:
    small, whole = study("mini_small.yaml"), study("mini.yaml")
    assert small.models == whole.models == ("mini",)
    assert small.selection.rules == whole.selection.rules
    assert small.tuning.model_copy(update={"steps": whole.tuning.steps}) == whole.tuning
    assert small.sets.items() <= whole.sets.items()
    assert small.axes.items() <= whole.axes.items()


@pytest.mark.parametrize("name", ["mini.yaml", "mini_small.yaml"])
def test_it_can_be_planned_without_corpora(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSONG_MODELS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    command = ["undersong", "plan", "--offline", str(STUDIES / name)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert capsys.readouterr().err == (
        "undersong: mini is not assembled on this machine; run `undersong models get mini`.\n"
    )
    bases = tiny_mini.save_bases(tmp_path)
    parts = tiny_mini.parts(tmp_path / "parts", tmp_path, adapters=False)
    assemble("mini", *map(str, bases), parts, tmp_path / "mini")
    with pytest.raises(SystemExit) as stopped:
        main()
    assert not stopped.value.code
    said = " ".join(capsys.readouterr().out.split())
    assert "semantic/closest-matched/audio" in said
    assert "independent draws a contrast" in said
