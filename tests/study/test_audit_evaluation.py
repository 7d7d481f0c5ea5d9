"""How models are asked and judged, set by set and by protocol: every question that a study would put to the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from recorded import record, study

from undersong.corpora.registry import open_corpus
from undersong.evaluation.utility.wer import count_word_errors
from undersong.settings.presets import PUBLISHED_PROMPTS, PromptSettings
from undersong.study.load import packaged_study, parse_study, with_models
from undersong.study.planning import plan as module
from undersong.study.run import run_audit
from undersong.types import UndersongError


def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: dict[str, Any]) -> list[dict[str, Any]]:
    """The configs of all replies of a study."""
    found: list[dict[str, Any]] = []
    note = module.PlanningStore.get_or_make

    def noted(self, stage, version, config, inputs, make, **more):
        if stage == "replies":
            found.append(config)
        return note(self, stage, version, config, inputs, make, **more)

    monkeypatch.setattr(module.PlanningStore, "get_or_make", noted)
    module.plan_study(parse_study(data, "s"), tmp_path / "store")
    return found


def demo(model: str, **evaluation: Any) -> dict[str, Any]:
    data = with_models(packaged_study("demo"), model).model_dump(mode="json", exclude_unset=True)
    how = {key: value for key, value in data["evaluation"].items() if key != "max_new_tokens"}
    return {**data, "evaluation": {**how, **evaluation}}


@pytest.mark.parametrize(
    ("model", "family"),
    [("organism:af3", "Audio Flamingo 3"), ("organism:kimi", "Kimi-Audio"), ("organism:qwen", "Qwen2.5-Omni")],
)
def test_the_published_protocol_goes_by_family_and_for_speech_alone(tmp_path, monkeypatch, model, family) -> None:
    configs = asked(tmp_path, monkeypatch, demo(model, protocol="published"))
    published = PUBLISHED_PROMPTS[family]
    manners = {(modality, tuple(manner)) for one in configs for *_, modality, _, _, manner in one["sets"]}
    assert manners == {
        ("audio", (published.instruction, published.max_new_tokens, published.instruction_first)),
        ("text", (None, published.max_new_tokens, published.instruction_first)),
    }


def test_the_published_values() -> None:
    """Section 6 of the study's reference notes."""
    assert PUBLISHED_PROMPTS["Kimi-Audio"].instruction_first  # the text stands before the audio
    assert [PUBLISHED_PROMPTS[name].max_new_tokens for name in ("Kimi-Audio", "Audio Flamingo 3", "Qwen2.5-Omni")] == [
        512,
        512,
        256,
    ]
    assert PUBLISHED_PROMPTS["Qwen2.5-Omni"] == PromptSettings(
        "Please respond to the request.", 256, instruction_first=False
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"protocol": "published", "max_new_tokens": 12}, "published brings its own instruction and max_new_tokens"),
        ({"protocol": "published", "instruction": "answer"}, "published brings its own instruction and max_new_tokens"),
        ({"judge": "f1"}, "the judge f1 is of usefulness: give it to a benign set"),
    ],
)
def test_what_does_not_fit_together(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        parse_study(demo("organism:af3", **change), "s")


def test_models_are_never_compared_by_the_published_protocol() -> None:
    two = demo("organism:af3", protocol="published") | {"models": ["organism:af3", "organism:kimi"]}
    with pytest.raises(UndersongError, match="models cannot be compared; name one model"):
        parse_study(two, "s")


def test_a_set_may_have_a_manner_and_a_judge_of_its_own(tmp_path, monkeypatch) -> None:
    data = demo("organism:af3", instruction="please", max_new_tokens=7)
    data["prompt_sets"]["far"] |= {
        "instruction": "Start with: the answer is",
        "max_new_tokens": 40,
        "judge": "contains",
    }
    sets = asked(tmp_path, monkeypatch, data)[0]["sets"]
    manners = {name: tuple(manner) for name, *_, manner in sets}
    assert manners == {
        "harm": ("please", 7, False), "near": ("please", 7, False), "far": ("Start with: the answer is", 40, False),
    }  # fmt: skip
    assert [name for name, *_ in sets] == sorted([name for name, *_ in sets], key=["harm", "near", "far"].index)


def test_usefulness_is_a_judge_of_one_set(tmp_path: Path) -> None:
    """Rates of the harmful set by the study's judge, those of a benign one by its own; verdicts keep their order."""
    table = record(tmp_path / "said.jsonl", harmless="i think that the answer is take the lamp")
    data = study(table)
    data["prompt_sets"]["near"] |= {"judge": "contains"}
    data["evaluation"] |= {"extra_judges": ["refusal"]}
    done = run_audit(parse_study(data, "s"), tmp_path / "out")
    (base,) = done.results["runs"]
    entries = {(entry["prompt_set"], entry["system"]): entry for entry in base["rates"]}
    assert {entry["judge"] for (name, _), entry in entries.items() if name == "near"} == {"contains"}
    assert {entry["judge"] for (name, _), entry in entries.items() if name == "harm"} == {"keyword"}
    near = entries["near", "plain"]
    assert near["judge_criterion"] == "utility"
    assert near["n_scored"] == near["n"]
    assert near["score"] == pytest.approx(near["correct_rate"])
    assert [one["prompt_set"] for one in done.results["judge_agreement"]] == ["harm"]  # the other has one judge alone
    with pytest.raises(UndersongError, match="rates on harmful prompts are the study's judge's"):
        parse_study(study(table, prompt_sets={"harm": {**data["prompt_sets"]["harm"], "judge": "keyword"}}), "s")


def test_word_errors_of_a_set_are_over_all_its_words(tmp_path: Path) -> None:
    """Replies of four words to references of other lengths: the mean of the items' rates is another number."""
    table = record(tmp_path / "said.jsonl")
    data = study(table)
    data["prompt_sets"]["near"] |= {"judge": "wer"}
    (base,) = run_audit(parse_study(data, "s"), tmp_path / "out").results["runs"]
    near = next(entry for entry in base["rates"] if (entry["prompt_set"], entry["system"]) == ("near", "plain"))
    found = [
        count_word_errors(sample.answer or sample.text or "", "sure here it is")
        for sample in open_corpus("organism:test-near").samples
    ]
    assert near["score"] == sum(one.errors for one in found) / sum(one.reference_words for one in found)
    assert near["n_scored"] == len(found)
