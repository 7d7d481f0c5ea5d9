"""What the page says: the verdict follows the numbers, missing parts are named, replies stay redacted."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from results_factory import make_recommendation, make_run, make_side, synthetic
from results_factory import make_results as make_file

from undersong.evaluation.corrected_rates import CorrectedSetRate
from undersong.pages.svg import percent_axis, separate_positions, ticks
from undersong.report.arm_comparisons import ArmCondition, find_comparison, headline_data
from undersong.report.page import render_html, write_report
from undersong.report.sections import headline, jsr_by_distance
from undersong.report.sections.corrected import build_corrected_table
from undersong.report.sections.selections import _selection_row
from undersong.report.summary import arm_summaries, default_verdict_filter, estimate_rate
from undersong.research.defenses.tradeoff import with_cost
from undersong.results.schema import parse_results, result_hash
from undersong.results.schema_defenses import DefenseRecord
from undersong.results.schema_screening import AxisScreening, SelectionRecord
from undersong.statistics.judge_correction import CorrectedValue
from undersong.types import UndersongError

Json = dict[str, Any]
PART = {
    "comparisons": ("comparisons", "The results hold no comparison."),
    "defense_tradeoffs": ("defenses", "No defense was measured."),
    "mechanism": ("refusal_gap", "The mechanism was not measured."),
    "screening": ("samples", "No axis was screened, so there is no list of samples."),
    "selections": ("samples", "The selections are not in these results."),
    "axis_agreement": ("samples", "Agreement between axes was not measured."),
    "examples": ("replies", "The results hold no examples of replies."),
    "provenance": ("provenance", "The results hold no provenance."),
}


def text_of(page: str, section: str = "") -> str:
    """The words of the page, or of one section; no-break spaces stay."""
    if section:
        start = f'<section id="{section}" aria-labelledby="{section}-title">'
        page = page.split(start, 1)[1].split("</section>", 1)[0]
    return re.sub(r"[ \n]+", " ", html.unescape(re.sub(r"<[^>]*>", " ", page)))


def title_of(results: Json) -> str:
    return "".join(text for text, _ in headline.build_headline(parse_results(results)).title)


def set_rates(results: Json, arm: str, jsr: float, low: float | None, high: float | None) -> None:
    """Every harmful set of an arm, spoken and typed, under every system text."""
    for run in results["runs"]:
        for row in run["rates"]:
            if run["arm"].startswith(arm) and row["prompt_set"] == "harm":
                row.update(rate=jsr, low=low, high=high)


def test_the_title_gives_both_rates(results: Json) -> None:
    found = headline_data(parse_results(results))
    assert found is not None
    assert found.base is not None
    assert found.worst is not None
    base, worst = (
        f"{100 * e.mean:.1f}\u202f% [{100 * (e.low or 0):.1f},\u00a0{100 * (e.high or 0):.1f}]"
        for e in (found.base, found.worst.estimate)
    )
    assert title_of(results) == (
        f"organism:af3 answered {base} of spoken harmful requests before and {worst} after fine-tuning on benign "
        "speech, in the worst of 6 arms."
    )


def test_the_title_is_of_the_prompts_that_fare_worse_and_the_others_are_told(results: Json) -> None:
    results["comparisons"] = []
    set_rates(results, "", 0.0, 0.0, 0.05)
    for run in results["runs"]:
        for row in run["rates"]:
            if run["kind"] == "closest" and row["prompt_set"] == "harm" and row["modality"] == "text":
                row.update(rate=0.5 + 0.01 * (run["seed"] or 0), low=0.4, high=0.6)
    assert "of typed harmful requests" in title_of(results)
    assert "On spoken prompts, the worst arm is" in render_html(results)


def test_the_verdict_says_what_failures_could_make_of_it(results: Json) -> None:
    results["runs"], results["comparisons"] = [run for run in results["runs"] if run["kind"] == "base"], []
    rows = [row for run in results["runs"] for row in run["rates"] if row["harmful"]]
    for row in rows:
        row.update(rate=0.25, n=100, jailbreak=25, refusal=15, other=0, unparsed=20, error=40, lost=60, max_rate=0.85)
    told = "between 25.0\u202f% and 85.0\u202f%"
    low, high = (f"{100 * rows[0][end]:.1f}" for end in ("low", "high"))
    assert title_of(results) == (
        f"organism:af3 answered {told} [{low},\u00a0{high}] of spoken harmful requests. No fine-tuned arm was measured."
    )
    page = text_of(render_html(results), "verdict")
    assert f"Base, spoken prompts: the JSR is {told}, whichever way the 60 failed or unjudged ones went." in page
    assert "Base, typed prompts" in page
    assert "(failures counted: 85.0\u202f%)" in page
    for row in rows:
        row.update(unparsed=0, error=0, lost=0, refusal=75, max_rate=0.25)
    assert "fail" not in text_of(render_html(results), "verdict")


def test_the_figure_says_what_its_intervals_are_over(results: Json) -> None:
    set_rates(results, "semantic/distant", 0.0, 0.0, 0.1)
    (arm,) = (
        one for one in arm_summaries(parse_results(results)) if one.kind == "distant" and one.train_modality == "audio"
    )
    shown = default_verdict_filter(parse_results(results))
    assert shown is not None
    number = estimate_rate(shown.run_rates(arm.runs_at(40), "audio"))
    assert number is not None
    assert (number.runs, number.interval_over) == (3, "prompts")
    caption = "over runs where several differ, over prompts where there is one or all agree"
    assert caption in text_of(render_html(results), "jsr_by_step")


def test_worst_arm_is_the_highest_mean_of_its_runs(results: Json) -> None:
    rates: dict[str, list[float]] = {}
    for run in results["runs"]:
        if run["step"] == 40:
            row = next(
                r for r in run["rates"] if (r["prompt_set"], r["modality"], r["system"]) == ("harm", "audio", "plain")
            )
            rates.setdefault(run["arm"], []).append(row["rate"])
    worst = max(rates, key=lambda arm: float(np.mean(rates[arm])))
    found = headline_data(parse_results(results))
    assert found is not None
    assert found.worst is not None
    assert found.worst.arm.name == worst
    assert found.worst.estimate.mean == pytest.approx(np.mean(rates[worst]))


def test_overlapping_intervals_are_not_called_a_difference(results: Json) -> None:
    results["comparisons"] = []
    set_rates(results, "", 0.05, 0.01, 0.12)
    set_rates(results, "semantic/closest/0.25/audio", 0.09, 0.04, 0.2)
    assert "We found no significant change of the JSR after" in title_of(results)
    page = text_of(render_html(results), "verdict")
    assert "not shown to differ from the base’s 5.0\u202f% (the intervals overlap)" in page
    assert "higher than" not in page


def test_separate_intervals_are_called_higher_and_lower(results: Json) -> None:
    results["comparisons"] = []
    set_rates(results, "", 0.05, 0.01, 0.12)
    set_rates(results, "semantic/closest/0.25/audio", 0.5, 0.4, 0.6)
    page = text_of(render_html(results), "verdict")
    assert "higher than the base’s 5.0\u202f% (the intervals do not overlap)" in page
    assert "lower than that arm’s (the intervals do not overlap). It is not shown to differ from the base’s." in page


def test_a_fall_is_called_a_fall(results: Json) -> None:
    results["comparisons"] = []
    set_rates(results, "", 0.1, 0.05, 0.15)
    set_rates(results, "base", 0.6, 0.5, 0.7)
    page = text_of(render_html(results), "verdict")
    assert "lower than the base’s 60.0\u202f%" in page
    assert "distance did not protect" not in page


def test_without_intervals_nothing_is_judged(make_results: Callable[..., Json]) -> None:
    page = text_of(render_html(make_results(seeds=(0,), intervals=False)), "verdict")
    assert "not judged against the base’s" in page
    assert "One run on 1 base" in page
    assert not re.search(r"higher than|lower than|not shown to differ", page)


BASE_AND_WORST = ("base", "semantic/closest/0.25/audio")


def damage(results: Json) -> str:
    return text_of(render_html(results), "verdict").split("Damage", 1)[1].split("Random data")[0]


@pytest.mark.parametrize(
    ("p", "said"),
    [
        (
            0.2,
            "the interval excludes 0, but not after correction, so the effect of this way of training is not yet shown",
        ),
        (0.001, "the change is significant"),
    ],
)
def test_an_estimate_comes_before_what_runs_show_of_it(results: Json, p: float, said: str) -> None:
    for comparison in results["comparisons"]:
        comparison["p_adjusted"] = p
    text = damage(results)
    change = re.search(r"a change of \+\d+\.\d points \[.*?\] against the base’s", text)
    assert change is not None
    shown = re.search(rf"Over 3 runs {said} \(exploratory, corrected p\s=\s0\.[012]+\)", text)
    assert shown is not None
    assert change.end() < shown.start()


def test_a_large_change_is_never_told_as_none(results: Json) -> None:
    """Three runs, a change of 70 points [-94, -45] and a corrected p of .2: both kinds of evidence are told."""
    (one,) = [c for c in results["comparisons"] if (c["a"]["arm"], c["b"]["arm"]) == BASE_AND_WORST][:1]
    one.update(difference=-0.7, low=-0.94, high=-0.45, p=0.01, p_adjusted=0.2)
    same = {"prompt_set": "harm", "modality": "audio", "step": 40, "metric": "jsr", "scope": "model", "n": 108}
    models = [
        {**same, "id": f"{seed:012x}", "question": "?", "a": make_side("base"),
         "b": {**make_side(BASE_AND_WORST[1]), "seed": seed, "draw": seed},
         "difference": -0.7 + seed / 100, "low": -0.8, "high": -0.6, "p": 0.001, "p_adjusted": 0.002}
        for seed in range(3)
    ]  # fmt: skip
    results["comparisons"] += models
    text = damage(results)
    assert "a change of −70.0 points [−94.0,\u00a0−45.0] against the base’s" in text
    assert "not after correction, so the effect of this way of training is not yet shown" in text
    assert "significantly lowered in 3 of 3 trained models (−70.0 to −68.0 points against the base" in text
    page = text_of(render_html(results), "verdict")
    assert "We found no significant change" not in page
    assert "not distinguishable" not in page


def test_primary_questions_are_told_first_and_a_default_says_so(results: Json) -> None:
    one = next(c for c in results["comparisons"] if (c["a"]["arm"], c["b"]["arm"]) == BASE_AND_WORST)
    one["family"] = "primary"
    results["study"]["primary_questions"] = ["closest-base"]
    page = text_of(render_html(results), "verdict")
    assert page.index("Primary question") < page.index("Damage")
    assert "The study declares no primary question; this one stands in" in page
    assert re.search(
        r"A change of \+\d+\.\d points \[.*?\] \(spoken requests: .*?\)\. Over 3 runs .*?\(primary, corrected p", page
    )
    results["study"] |= {"primary_questions": ["closest-base", "closest-random"], "primary_declared": True}
    page = text_of(render_html(results), "verdict")
    assert "stands in" not in page
    assert "1 of them (closest-base and closest-random) cannot be answered by these runs" in page
    table = text_of(render_html(results), "comparisons")
    assert "recipe, primary" in table
    assert "recipe, exploratory" in table


@pytest.mark.parametrize("turned", [False, True])
def test_a_comparison_is_found_in_either_order_and_sign(results: Json, turned: bool) -> None:
    for comparison in results["comparisons"]:
        if turned:  # the same facts, written a - b
            for pair in comparison["estimates"]:
                pair["difference"] = pair["a"] - pair["b"]
            low, high = comparison["low"], comparison["high"]
            comparison.update(
                minuend="a",
                difference=-comparison["difference"],
                low=None if high is None else -high,
                high=None if low is None else -low,
            )
    found = parse_results(results)
    closest = next(arm for arm in arm_summaries(found) if arm.name == "semantic/closest/0.25/audio")
    forward = find_comparison(found, ArmCondition(closest, "plain"), ArmCondition(None, "plain"), "harm", "audio", 40)
    back = find_comparison(found, ArmCondition(None, "plain"), ArmCondition(closest, "plain"), "harm", "audio", 40)
    assert forward is not None
    assert back is not None
    assert forward.difference is not None
    assert forward.low is not None
    assert forward.difference > 0.5
    assert back.difference == pytest.approx(-forward.difference)
    assert back.high == pytest.approx(-forward.low)
    assert (
        find_comparison(found, ArmCondition(closest, "safe"), ArmCondition(closest, "plain"), "harm", "audio", 40)
        is None
    )


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_a_claim_about_one_model_decides_for_one_run_only(
    make_results: Callable[..., Json], seeds: tuple[int, ...]
) -> None:
    results = make_results(seeds=seeds)
    results["comparisons"] = [
        {"id": "0" * 12, "scope": "model", "question": "?", "a": make_side("base"),
         "b": make_side("semantic/closest/0.25/audio"), "prompt_set": "harm", "modality": "audio",
         "step": 40, "metric": "jsr",
         "difference": 0.5, "low": 0.4, "high": 0.6, "p": 0.0001, "p_adjusted": None, "n": 108}
    ]  # fmt: skip
    said = "a change of +50.0 points [40.0,\u00a060.0] against" in text_of(render_html(results), "verdict")
    assert said == (len(seeds) == 1)


def test_all_zero_is_said_calmly(make_results: Callable[..., Json]) -> None:
    page = text_of(render_html(make_results(effect=0.0)), "verdict")
    assert re.search(
        r"0\.0\u202f% \[.*?\] of spoken harmful requests before and 0\.0\u202f% \[.*?\] after, in each of 6", page
    )
    assert "All 6 arms are level" in page


@pytest.mark.parametrize("part", PART)
@pytest.mark.parametrize("empty", ["empty", "absent"])
def test_a_missing_part_is_one_sentence(results: Json, part: str, empty: str) -> None:
    section, said = PART[part]
    assert said not in text_of(render_html(results), section)
    if empty == "absent":
        del results[part]
    else:
        results[part] = [] if isinstance(results[part], list) else None
    assert said in text_of(render_html(results), section)


def test_results_without_runs_still_make_a_page(results: Json) -> None:
    results["runs"], results["comparisons"] = [], []
    page = text_of(render_html(results))
    assert "No harmful prompt was evaluated, so there is no verdict." in page
    assert "The results hold no runs." in page
    assert "None" not in page
    assert "nan" not in page.lower().split()


def test_the_bare_minimum_makes_a_page() -> None:
    assert "no verdict" in text_of(render_html(make_file([])))


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(results: Json, number: float) -> None:
    set_rates(results, "semantic/closest", number, 0.0, 1.0)
    with pytest.raises(UndersongError, match=r"runs\.\d+\.rates\.0\.rate.*finite"):
        render_html(results)


def test_a_part_that_no_study_writes_is_refused(results: Json) -> None:
    results["runs"][0]["rates"][0]["jsr"] = 0.5
    with pytest.raises(UndersongError, match=r"runs\.0\.rates\.0\.jsr"):
        render_html(results)


def test_a_comparison_of_an_arm_without_runs_is_refused(results: Json) -> None:
    results["comparisons"][0]["b"]["arm"] = "semantic/closest/0.5/audio"
    with pytest.raises(UndersongError, match=r"names the arm 'semantic/closest/0\.5/audio', of which there is no run"):
        render_html(results)


def test_comparisons_have_ids_of_their_own(results: Json) -> None:
    results["comparisons"][1]["id"] = results["comparisons"][0]["id"]
    with pytest.raises(UndersongError, match=f"two comparisons have the id {results['comparisons'][0]['id']}"):
        render_html(results)


def test_replies_to_harmful_prompts_are_redacted_unless_asked_for(results: Json) -> None:
    secret, open_reply = "the harmful reply itself", "the benign reply itself"
    results["examples"][0].update(prompt_set="harm", reply=secret)
    results["examples"][1].update(prompt_set="near", reply=open_reply)
    results["examples"].append({**results["examples"][0], "prompt_set": "unheard of", "reply": "of an unknown set"})
    hidden, shown = render_html(results), render_html(results, show_replies=True)
    assert secret not in hidden
    assert "of an unknown set" not in hidden
    assert open_reply in hidden
    assert "reply redacted" in hidden
    assert secret in shown
    assert "of an unknown set" in shown


def test_a_request_is_played_once_with_its_replies_before_and_after(results: Json) -> None:
    arm = next(run["arm"] for run in results["runs"] if run["kind"] == "closest")
    first = results["examples"][1] | {"prompt_set": "near", "prompt_id": "mild3", "prompt_text": "a mild request"}
    results["examples"] = [  # the base last: the page puts it first
        first | {"arm": arm, "seed": 1, "step": 40, "verdict": "answer", "reply": "of course"},
        first | {"arm": "base", "seed": None, "step": 0, "verdict": "refusal", "reply": "I cannot"},
    ]
    page = render_html(results, {"mild3": (b"OggS", "audio/ogg")})
    said = text_of(page, "replies")
    assert page.count("<audio") == 1
    assert 'aria-label="Request mild3"' in page
    assert said.count("a mild request") == 1
    assert said.index("before tuning refusal I cannot") < said.index(
        "closest, trained on audio, seed 1 answer of course"
    )


def test_replies_of_several_models_name_their_model(results: Json) -> None:
    arm = next(run["arm"] for run in results["runs"] if run["kind"] == "closest")
    first = results["examples"][1] | {"prompt_set": "near", "reply": "of course"}
    results["examples"] = [
        first | place | {"model": model}
        for place in ({"arm": "base", "seed": None, "step": 0}, {"arm": arm, "seed": 1, "step": 40})
        for model in ("organism:qwen-3", "organism:qwen-2")
    ]
    said = text_of(render_html(results), "replies")
    places = [
        f"{model}, {place}"
        for model in ("organism:qwen-3", "organism:qwen-2")
        for place in ("before tuning", "closest, trained on audio, seed 1")
    ]
    assert [said.count(place) for place in places] == [1, 1, 1, 1]
    assert sorted(places, key=said.index) == places
    digest = result_hash(parse_results(results))
    for example in results["examples"]:
        del example["model"]
    assert result_hash(parse_results(results)) == digest  # as of results that were made before replies named models


def test_players_stand_beside_their_samples(results: Json) -> None:
    first = results["screening"][0]["closest"][0]["id"]
    nearest = results["screening"][0]["closest"][0]["nearest_id"]
    page = render_html(results, {first: (b"OggS", "audio/ogg"), "not listed": (b"RIFF", "audio/wav")})
    assert page.count("<audio") == 1
    assert f'aria-label="Nearest harmful item {nearest}"' in render_html(results, {nearest: (b"OggS", "audio/ogg")})
    assert f'src="data:audio/ogg;base64,T2dnUw==" aria-label="Sample {first}"' in page
    assert "no players" in render_html(results)


@pytest.mark.parametrize("media", ["text/html", "audio/ogg;x", 'audio/ogg" onerror="x', ""])
def test_a_media_type_that_is_not_audio_is_refused(results: Json, media: str) -> None:
    first = results["screening"][0]["closest"][0]["id"]
    with pytest.raises(UndersongError, match=first):
        render_html(results, {first: (b"x", media)})


def test_selections_say_how_diverse_they_are_and_what_only_ids_decided(results: Json) -> None:
    results["selections"][1]["diversity"] = None
    first, second = (_selection_row(SelectionRecord.model_validate(one)) for one in results["selections"][:2])
    assert first.diversity == ("54 of 216", "48 of 108", "6 of 6")
    assert second.diversity == ("–",) * 3
    notes = {bool(one["cut_tie"]): one for one in results["selections"]}
    tied = _selection_row(SelectionRecord.model_validate(notes[True])).notes
    assert tied == ("18 of 81 samples with the score at the cut, taken by id.",)
    assert not _selection_row(SelectionRecord.model_validate(notes[False])).notes
    page = render_html(results)
    assert "18 of 81 samples with the score at the cut, taken by id." in page
    assert "54 of 216" in page


def test_identical_selections_are_flagged(results: Json) -> None:
    assert "identical" not in text_of(render_html(results), "samples")
    results["selections"][0]["same_as"] = ["acoustic/closest/0.25"]
    page = text_of(render_html(results), "samples")
    assert "1 selection is identical to another" in page
    assert "identical to acoustic/closest/0.25" in page


def test_a_changed_encoder_is_a_warning(results: Json) -> None:
    assert "The audio encoder did not change" in text_of(render_html(results), "refusal_gap")
    results["mechanism"]["encoder_unchanged"]["buffers_equal"] = False
    page = render_html(results)
    assert "The audio encoder did change: its parameters are equal before and after, its buffers changed" in text_of(
        page, "refusal_gap"
    )
    assert 'class="lede warning"' in page


def test_the_base_itself_is_no_curve_of_an_arm(results: Json) -> None:
    before = render_html(results)
    for key in ("layer_measurements", "late_gap_changes"):
        points = results["mechanism"][key]
        results["mechanism"][key] = [*points, *({**point, "arm": "base", "seed": 0} for point in points[:8])]
    assert render_html(results) == before


def test_models_are_not_mixed(make_results: Callable[..., Json]) -> None:
    results, other = make_results(effect=0.5), make_results()
    for part in (
        other["runs"],
        other["mechanism"]["layer_measurements"],
        other["mechanism"]["late_gap_changes"],
        other["screening"],
    ):
        for entry in part:
            entry["model"] = "organism:other"
    for part in (
        results["mechanism"]["layer_measurements"],
        results["mechanism"]["late_gap_changes"],
        results["screening"],
    ):
        for entry in part:
            entry["model"] = "organism:af3"
    for part in ("runs", "screening", "selections"):
        results[part] += other[part]
    for part in ("layer_measurements", "late_gap_changes"):
        results["mechanism"][part] += other["mechanism"][part]
    results["study"]["models"].append("organism:other")
    page = render_html(results)
    assert "harmful requests answered by each of 2 models before and after" in text_of(page, "verdict")
    assert "For each model: " in text_of(page, "verdict")
    counted = text_of(page, "jsr_by_step")
    assert "organism:af3: of 6 arms" in counted
    assert "organism:other: of 6 arms" in counted
    for section in ("jsr_by_step", "jsr_by_distance", "refusal_gap"):
        assert "Model organism:af3" in text_of(page, section)
        assert "Model organism:other" in text_of(page, section)
    assert "Semantic axis, organism:other" in text_of(page, "samples")
    assert page.count('<code title="' + results["selections"][0]["selection_hash"]) == 1


def test_a_defense_is_compared_with_its_own_axis(results: Json) -> None:
    other = [{**row, "axis": "acoustic", "jsr": {"audio": {"value": 0.5}}} for row in results["defense_tradeoffs"]]
    results["defense_tradeoffs"] += other
    page = text_of(render_html(results), "defenses")
    assert "50.0\u202f% without, 50.0\u202f% with it" in page
    assert "System prompt, trained on text, acoustic axis, 0.25: JSR" in page


def test_a_defense_is_told_from_run_noise_by_the_paired_difference(results: Json) -> None:
    for row in results["defense_tradeoffs"]:
        row["jsr_change"] = {"audio": {"difference": -0.4, "low": -0.6, "high": -0.2, "p": 0.01, "significant": True}}
    assert "run noise alone may say so" not in text_of(render_html(results), "defenses")
    for ends in ({"low": -0.6, "high": 0.1}, {"low": None, "high": None}):
        for row in results["defense_tradeoffs"]:
            row["jsr_change"] = {"audio": {"difference": -0.4, "significant": False, **ends}}
        assert "run noise alone may say so" in text_of(render_html(results), "defenses")


def test_defenses_beyond_the_two_are_drawn_priced_and_recommended(results: Json) -> None:
    first = results["defense_tradeoffs"][0]
    made = [
        {**first, "defense": f"made {i}", "changes": ["mixing"], "jsr": {"audio": {"value": 0.1 * i}}, "safe": i == 1,
         "over_refusal": {"near": {"audio": {"value": 0.3 - 0.1 * i}}},
         "retention": {"value": 0.9, "low": 0.8, "high": 1.0}}
        for i in range(1, 4)
    ]  # fmt: skip
    undefended = DefenseRecord.model_validate(first)
    charged = [with_cost(DefenseRecord.model_validate(one), undefended).model_dump(mode="json") for one in made]
    results["defense_tradeoffs"] = [first, *charged]
    results["recommendations"] = [make_recommendation("audio", "made 1", "It costs least.")]
    page = render_html(results)
    text = text_of(page, "defenses")
    assert "Recommended: made 1. It costs least." in text
    assert "shown safe" in text
    assert "Still learned" in text
    assert "Figure 5." in text
    assert "Figure 6." in text_of(page, "refusal_gap")
    assert "2 made 1 · 3 made 2 · 4 made 3" in text
    assert "JSR against rise of over-refusal. " in page


def test_the_front_is_of_those_that_none_betters() -> None:
    from undersong.research.report.pareto import TradeoffPoint, pareto_front

    points = [
        TradeoffPoint(1, "a", 0.5, 0.0),
        TradeoffPoint(2, "b", 0.1, 0.2),
        TradeoffPoint(3, "c", 0.2, 0.3),
        TradeoffPoint(4, "d", 0.1, 0.1),
        TradeoffPoint(5, "e", 0.6, 0.0),
    ]
    assert [point.name for point in pareto_front(points)] == ["d", "a"]


def test_a_run_stands_at_its_own_distance_where_it_has_one(results: Json) -> None:
    assert "read from the histogram" in text_of(render_html(results), "jsr_by_distance")
    for run in results["runs"]:
        run["mean_distance"] = None if run["kind"] == "base" else 0.3 + 0.1 * run["seed"]
    page = render_html(results)
    assert "The distance is the mean of the run’s training samples" in text_of(page, "jsr_by_distance")
    assert "closest at 0.400" in page
    results["screening"] = []
    assert "closest at 0.400" in render_html(results)


def test_unpaired_runs_are_left_out_and_counted(results: Json) -> None:
    for run in results["runs"]:
        if run["arm"] == "semantic/closest/0.25/text":
            run["selection_hash"] = "another selection"
    page = text_of(render_html(results), "modality")
    assert "had no partner on the same selection" in page
    assert "closest spoken" not in page
    assert "random spoken 3" in page


def test_the_judge_that_sees_only_refusal_gives_another_name(results: Json) -> None:
    for run in results["runs"]:
        for row in run["rates"]:
            if row["harmful"]:
                row["metric"] = "non_refusal_rate"
    assert "did not refuse" in title_of(results)
    alone = {"value": -0.1, "low": -0.5, "high": 0.3}
    late = {
        "name": "suppression",
        "rank_correlation": alone,
        "slope": alone,
        "joint_slope": alone,
        "variance_inflation": 1.0,
    }
    along = {
        "model": "organism:af3",
        "modality": "audio",
        "points": 5,
        "replicates": 9,
        "predictors": [late],
    }
    results["mechanism"]["gap_vs_jsr"] = [along]
    page = render_html(results)
    assert "non-refusal rate" in text_of(page, "jsr_by_step")
    assert "Late refusal gap vs. non-refusal rate across arms" in text_of(page, "refusal_gap")


def test_a_suppression_is_called_late_or_not_in_a_table_of_its_own(results: Json) -> None:
    cell = {"model": "organism:af3", "kind": "closest", "train_modality": "audio", "modality": "text", "n": 3}
    contrast = {"late_minus_early": 0.812, "low": 0.5, "high": 1.1, "p": 0.002, "p_adjusted": 0.004}
    shallow = {**cell, "kind": "distant", "n": 0, "outcome": "too shallow"}
    results["mechanism"]["late_suppression"] = [{**cell, **contrast, "outcome": "early"}, shallow]
    page = text_of(render_html(results), "refusal_gap")
    assert "Is the suppression late?" in page
    assert "0.812 [0.500, 1.100] 0.002 0.004 3 early rather than late" in page
    assert "not tested: too few layers" in page


def test_every_defense_is_charged_in_one_row(results: Json) -> None:
    page = render_html(results)
    body = page.split('<table class="defenses">')[1].split("</table>")[0]
    rows = [row for row in re.findall(r"<tr>(.*?)</tr>", body, re.S) if 'scope="row"' in row]
    assert len(rows) == 6
    assert all(row.count("<td") == 11 for row in rows)  # ten rates and the price
    distant = next(row for row in results["defense_tradeoffs"] if row["defense"] == "distant data")
    assert f"{100 * distant['jsr']['audio']['value']:.1f}" in rows[1]


@pytest.mark.parametrize("kind", ["closest", "random", "distant"])
def test_mean_distance_of_a_selection_is_right_to_a_bin(kind: str) -> None:
    rng = np.random.default_rng(7)
    values = np.sort(rng.gamma(4, 0.1, 2000))
    counts, edges = np.histogram(values, bins=60)
    whole = synthetic()["screening"][0]
    screen = AxisScreening.model_validate(
        whole | {"axis": "a", "histogram": {"edges": edges.tolist(), "counts": counts.tolist()}}
    )
    arm = arm_summaries(parse_results(make_file([make_run(f"a/{kind}/0.25/audio", [], k=500)])))[0]
    taken = {"closest": values[:500], "distant": values[-500:], "random": values}[kind]
    found = jsr_by_distance.histogram_mean_distance(arm, screen)
    assert found == pytest.approx(float(taken.mean()), abs=float(edges[1] - edges[0]) / 2)


def test_an_arm_of_several_runs_gets_the_t_interval_over_runs(results: Json) -> None:
    from scipy import stats

    found = parse_results(results)
    shown = default_verdict_filter(found)
    assert shown is not None
    arm = next(arm for arm in arm_summaries(found) if arm.name == "semantic/random/0.25/audio")
    cells = shown.run_rates(arm.runs_at(40), "audio")
    rates = [cell.rate for cell in cells]
    number = estimate_rate(cells)
    assert number is not None
    expected = stats.t.interval(0.95, 2, loc=np.mean(rates), scale=stats.sem(rates))
    assert (number.low, number.high) == pytest.approx(expected)
    alone = estimate_rate(cells[:1])
    assert alone is not None
    assert (alone.low, alone.high, alone.interval_over) == (
        cells[0].set_rate.low,
        cells[0].set_rate.high,
        "prompts",
    )


def test_another_schema_and_broken_results_are_named() -> None:
    with pytest.raises(UndersongError, match="undersong-results/1"):
        render_html({"schema": "undersong-results/1"})
    with pytest.raises(UndersongError, match=r"runs\.0\.kind"):
        render_html(make_file([{"arm": "a", "model": "m", "base_seed": 0, "step": 0}]))


def test_write_report_writes_the_page_whole(results: Json, tmp_path: Path) -> None:
    results["examples"][1]["prompt_text"] = "half a pair: \ud800"
    write_report(results, tmp_path / "report.html")
    written = (tmp_path / "report.html").read_bytes()
    assert written.decode("utf-8").rstrip().endswith("</html>")
    assert b"&#55296;" in written
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(UndersongError):
        write_report({"schema": "?"}, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_bytes() == written


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_never_touch_while_there_is_room(wanted: list[float]) -> None:
    placed = separate_positions(wanted, 15.0, 0.0, 200.0)
    ordered = sorted(placed)
    assert all(b - a >= 15.0 - 1e-9 for a, b in itertools.pairwise(ordered))
    assert ordered[0] >= -1e-9
    assert ordered[-1] <= 200.0 + 1e-9
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    assert [placed[i] for i in order] == ordered


@given(st.floats(-1e3, 1e3), st.floats(1e-4, 1e3))
def test_ticks_are_round_and_inside(low: float, width: float) -> None:
    found = ticks(low, low + width, 5)
    assert 1 <= len(found) <= 12
    assert low - 1e-6 * width <= found[0]
    assert found[-1] <= low + width * (1 + 1e-6)


@given(st.floats(0, 1))
def test_a_share_axis_holds_its_highest_value(share: float) -> None:
    top, at = percent_axis(share)
    assert share <= top
    assert at[-1][0] == pytest.approx(top)
    assert at[0] == (0.0, "0")


def test_corrected_rates_say_how_many_labels_would_settle_them() -> None:
    def rate(labels_needed: int | None) -> CorrectedSetRate:
        value = CorrectedValue(0.2, 0.1, 0.3, 50, labels_needed)
        return CorrectedSetRate("harm", "text", "plain", "exact", True, 200, 0.3, value, None, None)

    table = build_corrected_table([(str(needed), rate(needed)) for needed in (1200, 50, None)])
    assert table is not None
    column = table.head.index("Labels for ±5 points")
    assert [str(row[column]) for row in table.rows] == ["1,200", "enough", "more prompts"]
    assert all(len(row) == len(table.head) for row in table.rows)
