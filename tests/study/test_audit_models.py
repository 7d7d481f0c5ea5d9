"""Two architectures in one study: a clip is heard once a base, contrasts stay within base, nothing is asked early."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from undersong.report.page import render_html
from undersong.study.run import run_audit
from undersong.study.schema import Study

MODELS = ("organism:af3", "organism:qwen")
STUDY = {
    "study": "two",
    "models": MODELS,
    "pool": "organism:pool",
    "reference": "organism:reference",
    "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
    "axes": {
        "semantic": "tfidf",
        "internal": "internal",
        "tower": "internal:tower",
        "steps": "gradients:64",
        "states": "decoder",
        "leaning": "refusal",
    },
    "selection": {"kinds": ["closest", "distant"], "filters": {"speaker": ["A"]}},
    "tuning": {"seeds": [0, 1], "draws": [0, 1], "save_steps": [1, 2], "learning_rate": 0.01, "batch_size": 4},
    "evaluation": {
        "max_new_tokens": 4,
        "system_prompts": {"plain": "you are a helpful assistant"},
        "per_step_prompt_sets": [],
    },
}


@pytest.fixture(scope="module")
def calls() -> list[str]:
    return []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, calls: list[str]) -> dict[str, Any]:
    """The study run in this process, every pass of an encoder counted by its class."""
    from transformers import AudioFlamingo3Encoder
    from transformers.models.qwen2_5_omni.modeling_qwen2_5_omni import Qwen2_5OmniAudioEncoder

    patch = pytest.MonkeyPatch()
    for cls in (AudioFlamingo3Encoder, Qwen2_5OmniAudioEncoder):

        def counted(self: Any, *args: Any, _forward=cls.forward, **more: Any) -> Any:
            calls.append(type(self).__name__)
            return _forward(self, *args, **more)

        patch.setattr(cls, "forward", counted)
    try:
        return run_audit(Study.model_validate(STUDY), tmp_path_factory.mktemp("two")).results
    finally:
        patch.undo()


def distinct_clips() -> int:
    from undersong.corpora.audio_metadata import examine
    from undersong.corpora.registry import open_corpus

    pool = [s for s in open_corpus("organism:pool").samples if s.speaker == "A"]
    others = [open_corpus(f"organism:{name}").samples for name in ("reference", "unseen-harm")]
    samples, _ = examine([*pool, *(s for corpus in others for s in corpus)])
    return len({s.pcm_hash for s in samples})


def test_the_encoder_hears_each_clip_once_whatever_the_arms(results: dict[str, Any], calls: list[str]) -> None:
    """Two models, four arms each at two seeds, tuned and evaluated; axes on what was heard and on a view of it."""
    clips = distinct_clips()
    assert {name: calls.count(name) for name in set(calls)} == {
        "AudioFlamingo3Encoder": clips,
        "Qwen2_5OmniAudioEncoder": clips,
    }
    heard = results["provenance"]["model_facts"]
    assert {ref: facts["encoder_passes"] for ref, facts in heard.items()} == dict.fromkeys(MODELS, clips)
    assert [heard[ref]["family"] for ref in MODELS] == ["Audio Flamingo 3", "Qwen2.5-Omni"]
    assert {facts["system_text"] for facts in heard.values()} == {"system role"}


def test_without_a_curve_nothing_is_asked_before_the_last_step(results: dict[str, Any]) -> None:
    assert {run["step"] for run in results["runs"]} == {0, 2}
    assert len(results["runs"]) == 2 * (1 + 2 * 2 * 2)


def test_a_view_is_an_axis_of_its_own(results: dict[str, Any]) -> None:
    closest = {(e["model"], e["axis"]): [item["id"] for item in e["closest"]] for e in results["screening"]}
    assert closest[MODELS[0], "internal"] != closest[MODELS[0], "tower"]


def test_gradients_are_an_axis_of_a_study(results: dict[str, Any]) -> None:
    found = [e for e in results["screening"] if e["axis"] == "steps"]
    assert [e["encoder"] for e in found] == ["gradients:64"] * 2
    assert found[0]["closest"] != found[1]["closest"]  # of each model its own
    assert all(0 <= item["distance"] <= 2 for e in found for item in e["closest"])


def test_predictors_are_axes_of_a_study(results: dict[str, Any]) -> None:
    """By the metric of each; log-odds have no bounds, and no harmful item is the nearest."""
    found = {(e["model"], e["axis"]): e for e in results["screening"]}
    for model in MODELS:
        states, leaning = found[model, "states"], found[model, "leaning"]
        assert (states["metric"], states["score"]) == ("cosine", "centroid")
        assert (leaning["metric"], leaning["score"]) == ("product", "centroid")
        assert leaning["distances"]["max"] > 2
        assert all(item["nearest_id"] is None for item in leaning["closest"])
        assert all(item["nearest_id"] for item in states["closest"])
        medians = {name: value["median"] for name, value in leaning["by_label"]["quadrant"].items()}
        assert min(medians["near_verb"], medians["near_object"]) < medians["far"]


def test_every_model_has_its_fingerprint(results: dict[str, Any]) -> None:
    """Both internal axes of both models against the reference axes, over whole requests."""
    found = {(one["model"], one["internal_axis"]): one for one in results["axis_fingerprints"]}
    assert set(found) == {(model, axis) for model in MODELS for axis in ("internal", "tower")}
    for one in found.values():
        (pair,) = one["pairs"]  # axes that need the model are no reference
        assert (pair["axis_a"], pair["n"]) == ("semantic", 108)
        assert pair["clusters"] == 108
        assert pair["spearman"]["low"] <= pair["spearman"]["value"] <= pair["spearman"]["high"]


def test_what_comes_near_an_overlap_is_counted(results: dict[str, Any]) -> None:
    """Pool and harm share templates and one word of two; no text is the very same."""
    kinds = {(one["corpus_a"], one["corpus_b"]): one["kind"] for one in results["corpus_overlap"]}
    assert set(kinds.values()) == {"nearly the same text"}
    assert ("pool", "reference") in kinds


def test_marginal_contrasts_are_means_within_a_base(results: dict[str, Any]) -> None:
    """Against a naive loop over the runs."""
    seen = {(m["model"], m["factor"], m["modality"]): m for m in results["marginal_effects"]}
    assert len(seen) == len(results["marginal_effects"]) == 2 * 2 * 2
    ids = [m["id"] for m in results["marginal_effects"]]
    assert {ids.count(id) for id in ids} == {len(MODELS)}  # one for all bases

    def rate(one: dict[str, Any], modality: str) -> float:
        (entry,) = (e for e in one["rates"] if e["modality"] == modality)
        return float(entry["rate"])

    for model in MODELS:
        tuned = [r for r in results["runs"] if r["model"] == model and r["kind"] != "base"]
        for modality in ("audio", "text"):

            def mean(modality: str = modality, tuned=tuned, **wanted: Any) -> float:
                return fmean(rate(r, modality) for r in tuned if all(r[key] == value for key, value in wanted.items()))

            axis, trained = seen[model, "axis", modality], seen[model, "modality", modality]
            assert axis["difference"] == pytest.approx(mean(kind="closest") - mean(kind="distant"))
            assert trained["difference"] == pytest.approx(mean(train_modality="audio") - mean(train_modality="text"))
            assert (axis["n"], axis["n_arms"], trained["n"], trained["n_arms"]) == (2, 2, 2, 2)
            for one in (axis, trained):
                assert one["id"]
                if one["low"] is not None:
                    assert one["low"] <= one["difference"] <= one["high"]
                for estimate in one["estimates"]:
                    assert estimate["difference"] == pytest.approx(estimate["b"] - estimate["a"])


def test_the_report_sets_models_side_by_side(results: dict[str, Any]) -> None:
    page = render_html(results)
    assert "Model comparison" in page
    start = page.index('<section id="models"')
    section = page[start : page.index("</section>", start)]
    assert all(name in section for name in MODELS)
    assert "Closest minus distant, semantic axis" in section
    assert "Trained on audio minus on text" in section
    one = json.loads(json.dumps(results))
    one["marginal_effects"] = [m for m in one["marginal_effects"] if m["model"] == MODELS[0]]
    assert "Model comparison" not in render_html(one)


def test_a_view_that_a_family_does_not_have_is_named(tmp_path: Path) -> None:
    from undersong.types import UndersongError

    wrong = {**STUDY, "models": MODELS[:1], "axes": {"semantic": "tfidf", "codes": "internal:codes"}}
    with pytest.raises(
        UndersongError, match=r"Axis codes: Audio Flamingo 3 .* has no view 'codes'; use internal, .*tower"
    ):
        run_audit(Study.model_validate(wrong), tmp_path)
