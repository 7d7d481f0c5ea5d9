"""`probe` from end to end on a packaged organism: figures held against their ingredients, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from undersong.research.probing.options import ProbeOptions
from undersong.research.probing.report import probe_findings
from undersong.research.probing.run import run_probe
from undersong.stages.output_folder import write_provenance
from undersong.standalone.evaluate import EvaluationOptions, evaluate_manifest
from undersong.standalone.options import TuneOptions
from undersong.standalone.tune import tune_manifest
from undersong.types import UndersongError

SETS = ("organism:contrast-harm", "organism:contrast-benign", "organism:test-harm", "organism:test-near")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tuned") / "out"
    options = TuneOptions(modality="text", save_steps=(30,), learning_rate=2e-3)
    return tune_manifest("organism:pool", "organism:af3", place, options)[-1]


@pytest.fixture(scope="module")
def asked(adapter: Path) -> ProbeOptions:
    names = ("contrast_harmful", "contrast_benign", "held_out_harmful", "held_out_benign")
    return ProbeOptions(
        model="organism:af3", adapter=adapter, **dict(zip(names, SETS)), modality="text", strengths=(0.5, 1.0),
        max_depth=1.0, max_kl=0.2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def folder(asked: ProbeOptions, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("probed") / "out"
    run_probe(asked, out)
    return out


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "probe.json").read_text())


def test_the_rates_are_those_that_evaluate_gives(found: dict[str, Any], adapter: Path, tmp_path: Path) -> None:
    for name, worn in (("base", None), ("tuned", adapter)):
        options = EvaluationOptions(modality="text")
        entry = evaluate_manifest(SETS[2], "organism:af3", tmp_path / name, worn, options).rate
        said = found[name]["reply_rates"]["harmful"]
        assert (said["rate"], said["low"], said["high"], said["n"]) == (
            entry.rate, entry.low, entry.high, entry.n,
        )  # fmt: skip


def test_no_behavior_is_on_two_sides(found: dict[str, Any]) -> None:
    from undersong.corpora.registry import open_corpus

    for kind, ref in (("harmful", SETS[0]), ("benign", SETS[1])):
        behaviors = len({s.cluster for s in open_corpus(ref).samples})
        fit, choose = (found["prompts"][name][f"{kind}_clusters"] for name in ("fit", "choose"))
        assert fit + choose == behaviors
        assert choose == round(behaviors / 3)


def test_what_goes_in_is_the_same_and_what_comes_out_is_not(found: dict[str, Any]) -> None:
    tuned = found["tuned"]
    assert tuned["encoder_difference"] == tuned["input_difference"] == 0
    assert tuned["drift"][0]["relative"] == 0
    assert all(one["relative"] > 0 for one in tuned["drift"][1:])
    assert len(tuned["gaps"]) == found["layers"] + 1
    assert tuned["gaps"][0]["gap_before"] is None  # all prompts end with the same token, so there is no direction
    late = tuned["late_gap"]
    assert late["low"] <= late["change"] <= late["high"]
    last = tuned["gaps"][-1]  # of four layers the last is the late quarter
    assert late["change"] == pytest.approx(last["gap_after"] - last["gap_before"])
    assert tuned["late_minus_early"] is None
    assert any(
        "has 4 layers, and late layers are told from early ones only with 6 or more" in one for one in found["findings"]
    )


def test_what_is_given_back_ends_at_the_base(found: dict[str, Any]) -> None:
    tuned = found["tuned"]
    assert tuned["refusal_score_drop"]["low"] > 0
    shares = [one["share"] for one in tuned["patching"]]
    assert shares[0] == pytest.approx(0.0, abs=1e-6)
    assert shares[-1] == pytest.approx(1.0, abs=1e-6)
    names = [one["part"] for one in tuned["module_groups"]]
    assert names[: found["layers"]] == [f"layer {i}" for i in range(1, found["layers"] + 1)]
    assert names[-2:] == ["first half", "second half"]


def test_recognition_is_told_beside_refusal(found: dict[str, Any]) -> None:
    known, said = (
        found["tuned"]["harm_recognition"],
        [found[name]["reply_rates"]["harmful"] for name in ("base", "tuned")],
    )
    assert known["by_layer"][0]["accuracy_before"] is None  # the input is the same for all
    last = known["by_layer"][-1]  # of four layers the last is the late quarter
    assert (known["before"], known["after"]) == (last["accuracy_before"], last["accuracy_after"])
    assert known["change"]["value"] == pytest.approx(known["after"] - known["before"])
    assert known["before"] > 0.9
    assert last["low_before"] <= last["accuracy_before"] <= last["high_before"]
    refused = [one["refusal"] / one["n"] for one in said]
    assert known["refusals"]["value"] == pytest.approx(refused[1] - refused[0])
    assert known["dissociated"] == (known["outcome"] == "retained" and known["refusals"]["high"] < 0)
    assert any(known["sentence"] in one for one in found["findings"])


def test_the_cause_is_held_against_chance(found: dict[str, Any]) -> None:
    ablation, steering = found["base"]["ablation"], found["tuned"]["steering"]
    assert len(ablation["random_refusal_score_drops"]) == 19
    larger = sum(one >= ablation["refusal_score_drop"] for one in ablation["random_refusal_score_drops"])
    assert ablation["p"] == pytest.approx((1 + larger) / 20)
    assert ablation["reply_rates"]["harmful"]["rate"] > found["base"]["reply_rates"]["harmful"]["rate"]
    assert [one["strength"] for one in steering["tried"]] == [0.0, 0.5, 1.0]
    assert steering["layer"] == ablation["layer"]
    assert ablation["layer"] < found["layers"]  # never the last layer, whatever the limits
    assert any("looser than the published 0.1 and 0.8" in note for note in found["notes"])
    assert ablation["loss"]["before"] < 0.1  # the base's own replies, in the base
    for one in (ablation, steering):
        assert set(one["loss"]) == {"before", "after"}
    assert sum("perplexity" in one for one in found["findings"]) == 2


@pytest.mark.parametrize(
    ("difference", "p_value", "high", "said"),
    [
        (-0.5, 0.01, -0.1, "so the suppression is late"),
        (-0.5, 0.01, 0.1, "but the late gap itself did not provably fall"),
        (0.5, 0.01, -0.1, "The gap fell more, or grew less, in the first third"),
        (-0.5, 0.3, -0.1, "did not provably change more"),
    ],
)
def test_a_suppression_is_late_only_if_the_late_gap_falls_and_by_more_than_the_early_one(
    found: dict[str, Any], difference: float, p_value: float, high: float, said: str
) -> None:
    contrast = {"difference": difference, "low": difference - 0.1, "high": difference + 0.1, "p_value": p_value}
    tuned = {**found["tuned"], "late_minus_early": contrast, "late_gap": {**found["tuned"]["late_gap"], "high": high}}
    assert any(said in finding for finding in probe_findings({**found, "tuned": tuned}))


def test_the_page_says_what_the_numbers_say(folder: Path, found: dict[str, Any]) -> None:
    page = (folder / "probe.md").read_text()
    assert all(f"- {one}" in page for one in found["findings"])
    assert f"JSR {found['base']['reply_rates']['harmful']['rate']:.1%} before" in page
    assert "Encoder and projector have the same hashes" in page
    assert "the same to the last bit" in page
    assert found["encoder"] == {"parameters": True, "buffers": True}
    assert all(ref in page for ref in (*SETS, "judge exact"))
    inputs = json.loads((folder / "provenance.json").read_text())["inputs"]
    assert set(inputs) == {
        "model",
        "adapter",
        "contrast_harmful",
        "contrast_benign",
        "held_out_harmful",
        "held_out_benign",
    }


def test_nothing_moved_is_said_so(asked: ProbeOptions, adapter: Path, tmp_path: Path) -> None:
    """An adapter that does nothing: LoRA whose second matrices are zero."""
    import shutil

    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, tmp_path / "idle")
    file = tmp_path / "idle" / "adapter_model.safetensors"
    weights = {name: value * (0 if "lora_B" in name else 1) for name, value in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UndersongError, match=r"idle changes nothing: "):
        run_probe(replace(asked, adapter=tmp_path / "idle"), tmp_path / "out")
    write_provenance(tmp_path / "idle", "tune", {}, {}, {})  # as of an adapter that was saved before the first step
    results = run_probe(replace(asked, adapter=tmp_path / "idle"), tmp_path / "out")
    tuned = results["tuned"]
    assert all(one["relative"] == 0 for one in tuned["drift"])
    assert tuned["late_gap"]["change"] == 0
    assert tuned["late_gap"]["p"] is None
    known = tuned["harm_recognition"]
    assert (known["outcome"], known["dissociated"], known["change"]["value"]) == ("retained", False, 0)
    assert tuned["patching"] is None
    assert "module_groups" not in tuned
    assert any("Refusal lost nothing" in one for one in results["findings"])


def test_without_a_direction_no_layer_is_ranked(asked: ProbeOptions, tmp_path: Path) -> None:
    """Both contrast sets, and both held-out sets, of the same kind of prompts."""
    from undersong.corpora.manifest import write_manifest
    from undersong.corpora.registry import open_corpus

    for name, ref in (("contrast", SETS[1]), ("test", SETS[3])):
        samples = open_corpus(ref).samples
        groups = sorted({sample.cluster for sample in samples})
        for side in (0, 1):
            mine = [sample for sample in samples if groups.index(sample.cluster) % 2 == side]
            write_manifest(mine, tmp_path / f"{name}{side}.parquet")
    sets = [str(tmp_path / f"{name}.parquet") for name in ("contrast0", "contrast1", "test0", "test1")]
    named = dict(zip(("contrast_harmful", "contrast_benign", "held_out_harmful", "held_out_benign"), sets))
    results = run_probe(replace(asked, **named), tmp_path / "out")
    assert "candidates" not in results["base"]
    assert "patching" not in results["tuned"]
    assert any("no further apart" in note for note in results["notes"])


def test_slips_are_refused_before_a_model_is_loaded(
    asked: ProbeOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from undersong.standalone import inputs as readied

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(readied, "load_model_with_audio", load)
    for change, said in (
        ({"held_out_harmful": SETS[0]}, "The contrast set harmful and the set held_out_harmful overlap"),
        ({"model": "recorded:x.jsonl"}, "only answers, and cannot be looked into"),
        ({"adapter": tmp_path}, "no PEFT adapter folder"),
        ({"modality": "smell"}, "no modality 'smell'"),
        ({"judge": "oracle"}, "no judge 'oracle'"),
        ({"contrast_benign": SETS[0]}, "The harmful contrast set and the benign one overlap"),
        ({"held_out_benign": SETS[2]}, "The set held_out_harmful and the set held_out_benign overlap"),
    ):
        with pytest.raises(UndersongError, match=said):
            run_probe(replace(asked, **change), tmp_path / "out")
    for name in ("contrast", "test"):  # other words of the same behaviors
        rows = [{"id": str(i), "text": f"{name} {i}", "group": str(i)} for i in range(8)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    alike = replace(
        asked, contrast_harmful=str(tmp_path / "contrast.jsonl"), held_out_harmful=str(tmp_path / "test.jsonl")
    )
    with pytest.raises(UndersongError, match=r"overlap in 8 pairs of items, the first '0' and '0' \(same group"):
        run_probe(alike, tmp_path / "out")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(json.dumps({"id": str(i), "text": f"paint {i}"}) + "\n" for i in range(5)))
    with pytest.raises(UndersongError, match="has 5 behaviors, and a direction needs 8"):
        run_probe(replace(asked, contrast_harmful=str(few)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_probes_may_be_cross_validated_in_the_contrast_sets_too(
    asked: ProbeOptions, found: dict[str, Any], tmp_path: Path
) -> None:
    """Held against scikit-learn's grouped cross-validation of the same states, which has no permutations of its own."""
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.model_selection import GroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
    from undersong.research.probing.options import load_contrast_splits as split
    from undersong.standalone.inputs import load_model_with_audio

    results = json.loads(json.dumps(run_probe(replace(asked, nested_permutations=19), tmp_path / "out")))
    nested = results["tuned"]["harm_recognition"].pop("nested")
    assert "nested" not in found["tuned"]["harm_recognition"]
    assert results == found  # all else is said twice alike
    assert np.isfinite(found["tuned"]["refusal_score_drop"]["value"])
    assert nested[0]["accuracy_before"] is None  # the input is the same for all
    assert "nested cross-validation in the contrast sets" in (tmp_path / "out" / "probe.md").read_text()
    sides = split(asked)
    every = [prompt for name in ("fit", "choose") for prompt in sides[name].all_prompts]
    model = load_model_with_audio(asked.model, DEFAULT_LOAD_OPTIONS, [prompt.sample for prompt in every])
    states, harmful = model.hidden_states(every), [prompt.harmful for prompt in every]
    groups = [f"{prompt.harmful} {prompt.sample.cluster}" for prompt in every]
    other = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=5, cv=3))
    for place in range(1, len(states)):
        said = cross_val_predict(other, states[place], harmful, groups=groups, cv=GroupKFold(5))
        accuracy = np.mean([np.mean(said[np.array(harmful) == kind] == kind) for kind in (True, False)])
        assert nested[place]["accuracy_before"] == pytest.approx(accuracy, abs=0.06)
        assert nested[place]["p_before"] <= 0.25  # 1 of 20, times the layers


@pytest.mark.parametrize(
    ("change", "said"),
    [({"equivalence_margin": 0.0}, "margin"), ({"equivalence_margin": 0.5}, "margin"),
     ({"equivalence_margin": float("nan")}, "margin"), ({"max_kl": -1.0}, "leave no layer"),
     ({"max_depth": 0.0}, "leave no layer"), ({"judge": "choice"}, "usefulness")],
)  # fmt: skip
def test_numbers_that_mean_nothing_are_refused_at_once(asked: ProbeOptions, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        replace(asked, **change)


def test_a_judge_of_refusals_is_never_said_to_tell_a_jsr(asked: ProbeOptions, tmp_path: Path) -> None:
    results = run_probe(replace(asked, judge="keyword", strengths=(1.0,)), tmp_path / "out")
    assert results["findings"][0].startswith("Non-refusal rate")
    assert "JSR" not in (tmp_path / "out" / "probe.md").read_text()
