"""What the page says of the time before training: fingerprint, screening score, what it foretold, shared items."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest

from undersong.report.page import render_html
from undersong.report.sections import screening
from undersong.results.schema import parse_results

Json = dict[str, Any]


def spread(value: float | None, low: float | None = None, high: float | None = None) -> Json:
    return {"value": value, "low": low, "high": high}


def pair(axis: str, value: float) -> Json:
    return {
        "axis_a": axis,
        "axis_b": "internal",
        "n": 648,
        "clusters": 108,
        "spearman": spread(value, value - 0.1, value + 0.1),
        "overlap": spread(0.31, 0.2, 0.4),
        "cka": spread(0.28),
        "chance": 0.25,
        "tied": {"axis_a": 0.0, "axis_b": 0.0},
    }


@pytest.fixture
def known(results: Json) -> Json:
    """The results with what a study says before any training."""
    results["axis_fingerprints"] = [
        {
            "model": "organism:af3",
            "internal_axis": "internal",
            "pairs": [pair("semantic", 0.16), pair("acoustic", -0.26)],
            "dominant_axis": {"spearman": "acoustic", "overlap": None, "cka": None},
        }
    ]
    results["screening_scores"] = [
        {
            "model": "organism:af3",
            "axis": "semantic",
            "harm_set": "reference",
            "score": "nearest",
            "n": {"pool": 648, "benign_reference": 36, "held_out": 36},
            "clusters": {"pool": 108, "benign_reference": 6, "held_out": 6},
            "value": spread(0.21, 0.1, 0.3),
            "held_out": spread(0.5),
        }
    ]
    points = [
        {"arm": "semantic/closest/0.25/audio", "selection_hash": "a", "score": 0.4, "rate": 0.6, "n_runs": 3},
        {"arm": "semantic/held<level/audio", "selection_hash": "b", "score": -0.1, "rate": 0.1, "n_runs": 3},
    ]
    results["score_vs_jsr"] = [
        {
            "model": "organism:af3",
            "axis": "semantic",
            "train_modality": "audio",
            "prompt_set": "harm",
            "metric": "jsr",
            "n": 2,
            "spearman": spread(None),
            "points": points,
        }
    ]
    results["corpus_overlap"] = [
        {"corpus_a": "pool", "corpus_b": "harm", "kind": "nearly the same text", "pairs": 1380}
    ]
    return results


def said(results: Json) -> str:
    page = render_html(results).split('<section id="screening"', 1)[1].split("</section>", 1)[0]
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def test_all_four_are_told(known: Json) -> None:
    text = said(known)
    assert "Axis internal goes along most with acoustic by rank correlation; by the other measures" in text
    assert "648 samples in 108 groups" in text
    assert "−0.26 [−0.36, −0.16]" in text
    assert "0.31 [0.20, 0.40] (chance 0.25)" in text
    assert "0.21 [0.10, 0.30]" in text
    assert "648 / 36 / 36" in text
    assert "nearly the same text 1,380" in text
    assert "2 arms are too few for a rank correlation (8 are needed), n = 2" in text


def test_no_lead_is_said_to_be_none(known: Json) -> None:
    known["axis_fingerprints"][0]["dominant_axis"] = dict.fromkeys(("spearman", "overlap", "cka"))
    assert "goes along with no reference axis more than with the others" in said(known)
    known["axis_fingerprints"][0]["dominant_axis"] = dict.fromkeys(("spearman", "overlap", "cka"), "semantic")
    assert "by the other measures" not in said(known)


def test_a_score_without_arms_is_no_forecast(known: Json) -> None:
    known["score_vs_jsr"] = []
    assert "nothing is known of how well it foretells damage" in said(known)


def test_every_mark_is_told_in_words_and_escaped(known: Json) -> None:
    known["score_vs_jsr"][0]["spearman"] = spread(0.8, 0.2, 1.0)
    panel = screening.build_screening(parse_results(known)).panels[0]
    assert "ρ = 0.80 [0.20" in panel.title
    assert panel.picture.count("<title>") == 2
    assert "held&lt;level" in panel.picture
    assert "held<level" not in panel.picture


def test_without_any_of_it_there_is_no_section(results: Json) -> None:
    page = render_html(results)
    assert 'id="screening"' not in page
    assert ">Screening<" not in page


def test_the_run_noise_floor_is_told(results: Json) -> None:
    results["run_noise"] = [
        {"model": "organism:af3", "train_modality": "audio", "prompt_set": "harm", "modality": "audio", "groups": 2,
         "runs": 6,
         "df": 4, "sd": 0.08, "low": 0.05, "high": 0.2, "repeatability_limit": 0.22},
        {"model": "organism:af3", "train_modality": "text", "prompt_set": "harm", "modality": "text", "groups": 0,
         "runs": 0,
         "df": 0, "sd": None, "note": "No group has two replicates."},
    ]  # fmt: skip
    page = render_html(results).split('<section id="comparisons"', 1)[1].split("</section>", 1)[0]
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    assert "6 in 2 8.0 [5.0, 20.0] 22.0 points" in text
    assert "No group has two replicates." in text


def test_which_axis_goes_along_with_damage(results: Json) -> None:
    axis = {
        "rank_correlation": spread(0.69, 0.09, 0.94),
        "slope": spread(0.05, 0.0, 0.08),
        "joint_slope": spread(-0.02, -0.1, 0.1),
    }
    results["proximity_vs_jsr"] = [
        {"model": "organism:af3", "train_modality": "audio", "prompt_set": "harm", "modality": "audio", "points": 11,
         "replicates": 27, "note": "Some axes rank these selections alike.",
         "predictors": [{"name": "semantic", **axis, "variance_inflation": 20.6, "dominant_share": 0.294}]},
    ]  # fmt: skip
    page = render_html(results).split('<section id="jsr_by_distance"', 1)[1].split("</section>", 1)[0]
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    assert "Rise of the JSR against nearness" in text
    assert "0.69 [0.09, 0.94] +5.0 [0.0, 8.0] −2.0 [−10.0, 10.0] 20.6 29.4" in text
    assert "Some axes rank these selections alike." in text


def test_of_few_arms_the_report_says_that_they_are_few(results: Json) -> None:
    few = "5 arms are too few for a rank correlation (8 are needed)."
    results["proximity_vs_jsr"] = [
        {"model": "organism:af3", "train_modality": "audio", "prompt_set": "harm", "modality": "audio", "points": 5,
         "replicates": 15, "note": few, "predictors": []},
    ]  # fmt: skip
    assert few in render_html(results).split('<section id="jsr_by_distance"', 1)[1].split("</section>", 1)[0]


def test_where_the_spread_of_runs_comes_from_is_told(results: Json) -> None:
    parts = [
        {"name": "selection", "groups": 5, "df": 4, "sd": 0.2, "low": 0.1, "high": 0.6, "share": 0.8},
        {"name": "draw", "groups": 0, "df": 0, "sd": None, "note": "No selection was trained on several draws."},
        {"name": "seed", "groups": 15, "df": 10, "sd": 0.1, "low": 0.07, "high": 0.18, "share": 0.2},
    ]
    one = {"train_modality": "audio", "prompt_set": "harm", "modality": "audio", "n": 108, "runs": 15, "sd": 0.22}
    results["variance_components"] = [{**one, "components": parts, "seed_sd_from_prompts": 0.04}]
    page = render_html(results).split('<section id="comparisons"', 1)[1].split("</section>", 1)[0]
    text = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))
    assert "selection 5 20.0 [10.0, 60.0] 80.0 %" in text
    assert "draw No selection was trained on several draws. – – –" in text
    assert "4.0 points of the seed’s SD are there because 108 prompts are few" in text
    results["variance_components"] = [{**one, "components": [parts[1]], "seed_sd_from_prompts": None}]
    assert "Variance components" not in render_html(results)
