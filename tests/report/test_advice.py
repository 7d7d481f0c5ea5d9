"""The first screen: every arm beside the base, and advice that the numbers carry."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from results_factory import make_recommendation

from undersong.report.page import render_html
from undersong.report.sections import advice, arm_chart, comparisons, headline
from undersong.results.schema import parse_results

Json = dict[str, Any]


def said(results: Json) -> list[str]:
    return [one.what for one in advice.build_advice(parse_results(results))]


def set_rates(results: Json, arm: str, jsr: float, low: float | None, high: float | None, system: str = "") -> None:
    results["comparisons"] = []
    for run in results["runs"]:
        for row in run["rates"]:
            if run["arm"].startswith(arm) and row["prompt_set"] == "harm" and system in ("", row["system"]):
                row.update(rate=jsr, low=low, high=high)


def broken(results: Json) -> Json:
    """Only closest data break it, and nothing helps."""
    set_rates(results, "", 0.05, 0.01, 0.12)
    for kind in ("closest", "random", "distant"):
        set_rates(results, f"semantic/{kind}/0.25/audio", 0.5, 0.4, 0.6)
    return results


def test_every_arm_stands_beside_the_base(results: Json) -> None:
    first = headline.build_headline(parse_results(results))
    assert [row.label for row, _ in first.rows] == [
        "Base", "Closest 25\u202f%", "Random 25\u202f%", "Distant 25\u202f%", "System text “safe”",
        "Closest 25\u202f%", "Random 25\u202f%", "Distant 25\u202f%",
    ]  # fmt: skip
    assert [row.flag for row, _ in first.rows].count("worst") == 1
    assert first.rows[1][0].flag == "worst"
    assert first.rows[1][0].against == "above the base"
    assert not first.further


def test_an_arm_above_the_base_keeps_its_difference_from_the_worst(results: Json) -> None:
    distant = "semantic/distant/0.25/audio"
    (to_base,) = (c for c in results["comparisons"] if (c["a"]["arm"], c["b"]["arm"]) == ("base", distant))
    to_base.update(low=0.01, p_adjusted=0.01)
    rows = [row for row, _ in headline.build_headline(parse_results(results)).rows]
    assert rows[3].against.replace("\xa0", " ") == "above the base, −80.9 [−92.4, −69.3] from the worst"


def test_of_many_arms_the_highest_are_shown_and_none_is_lost(make_results: Callable[..., Json]) -> None:
    results = make_results(axes=("semantic", "acoustic", "mixed"))
    first = headline.build_headline(parse_results(results))
    arms = [row for row, _ in first.rows if row.label != "Base" and not row.hollow]
    rest = [row for row, _ in first.further]
    assert (len(arms), len(rest)) == (arm_chart.TOP_ARMS_SHOWN, 18 - arm_chart.TOP_ARMS_SHOWN)
    assert min(row.estimate.mean for row in arms) >= max(row.estimate.mean for row in rest)
    assert "10 more arms, none with a higher JSR" in render_html(results)


def test_what_helps_is_advised_with_its_number(results: Json) -> None:
    broken(results)
    assert "Train on distant data instead." not in said(results)
    assert not [one for one in said(results) if one.startswith("Ask under")]
    set_rates(results, "semantic/distant/0.25/audio", 0.04, 0.01, 0.1)
    set_rates(results, "semantic/closest/0.25/audio", 0.1, 0.05, 0.2, "safe")
    found = {one.what: one for one in advice.build_advice(parse_results(results))}
    assert "4.0\u202f% [1.0,\u00a010.0] (3 runs of 108 prompts), not shown to differ from the base’s" in (
        found["Train on distant data instead."].why
    )
    assert "what it costs" in found["Ask under the system text “safe”."].why
    assert next(iter(found)) == "Do not ship the worst arm as it is."


def test_a_recommended_defense_stands_before_what_only_helps(results: Json) -> None:
    broken(results)
    set_rates(results, "semantic/distant/0.25/audio", 0.04, 0.01, 0.1)
    results["recommendations"] = [make_recommendation("audio", "mixing", "It costs least.")]
    assert "Use the defense “mixing” for the model trained on audio." in said(results)
    assert "Train on distant data instead." not in said(results)
    results["recommendations"] = [
        make_recommendation(trained, None, "None is shown to be safe.") for trained in ("audio", "text")
    ]
    assert "Rely on no defense alone for the model trained on audio or trained on text." in said(results)
    assert "Prefer distant data, which lowers the rate but is not shown to be safe." in said(results)
    assert "Train on distant data instead." not in said(results)


def test_nothing_found_is_no_proof(results: Json) -> None:
    set_rates(results, "", 0.05, 0.01, 0.12)
    first = advice.build_advice(parse_results(results))[0]
    assert first.what == "Do not read this as proof of safety."
    assert "up to 12.0\u202f% fits" in first.why
    assert not [one for one in said(results) if "distant" in one or "Ask under" in one]


def test_an_arm_above_the_base_is_told_of_though_the_worst_is_too_uncertain(results: Json) -> None:
    set_rates(results, "", 0.05, 0.01, 0.12)
    for seed, rate in enumerate((0.1, 0.5, 0.99)):  # a mean of 53 %, and an interval that holds the base
        for run in results["runs"]:
            if run["arm"] == "semantic/closest/0.25/audio" and run["seed"] == seed:
                for row in run["rates"]:
                    if row["prompt_set"] == "harm":
                        row["rate"] = rate
    set_rates(results, "semantic/random/0.25/audio", 0.4, 0.3, 0.5)
    first = advice.build_advice(parse_results(results))[0]
    title = "".join(text for text, _ in headline.build_headline(parse_results(results)).title)
    assert title.endswith("in the worst of 6 arms, too uncertain to tell; 1 of them is above the base.")
    assert first.what == "Do not ship an arm that is above the base as it is."
    assert first.why.startswith(
        "Random 25\u202f%, semantic axis, trained on audio: its JSR is 40.0\u202f% [30.0,\u00a050.0]"
    )
    assert "Train on distant data instead." not in said(results)


def test_without_intervals_it_says_to_measure_again(make_results: Callable[..., Json]) -> None:
    results = make_results(seeds=(0,), intervals=False)
    assert said(results)[0] == "Measure again, with more runs."
    assert "Train more seeds before you claim anything of the recipe." in said(results)


def test_enough_runs_are_not_asked_for_more(make_results: Callable[..., Json]) -> None:
    assert not [one for one in said(make_results(seeds=tuple(range(5)))) if "seeds" in one]


def test_of_a_base_alone_and_of_nothing(results: Json) -> None:
    results["runs"], results["comparisons"] = results["runs"][:1], []
    assert said(results) == ["Train something."]
    results["runs"] = []
    assert said(results) == []
    assert "Recommended actions" not in render_html(results)


def test_every_link_of_the_advice_leads_to_a_section(results: Json) -> None:
    page = render_html(results)
    links = re.findall(r'<a href="#([a-z_]+)">[^<]+</a></li>', page)
    assert len(links) >= 2
    assert all(f'<section id="{one}"' in page for one in links)


def test_replies_that_judges_count_differently_are_listed(results: Json) -> None:
    assert comparisons.build_judge_disagreements(parse_results(results)) is None
    one = {"arm": "semantic/closest/0.25/audio", "seed": 1, "step": 40, "prompt_id": "p-7", "modality": "text",
           "system": "plain", "verdict": "jailbreak", "other_verdict": "refusal"}  # fmt: skip
    results["judge_agreement"] = [
        {"judge": "exact", "other_judge": "keyword", "prompt_set": "harm", "counted_verdict": "jailbreak", "n": 108,
         "n_lost": 0, "clusters": 36, "both": 80, "only_judge": 1, "only_other": 0, "neither": 27,
         "disagreements": [one]}
    ]  # fmt: skip
    table = comparisons.build_judge_disagreements(parse_results(results))
    assert table is not None
    assert table.rows == (
        ("p-7", "exact / keyword", "harm", one["arm"], "1", "40", "typed", "plain", "jailbreak", "refusal"),
    )
    assert "Replies that they count differently" in render_html(results)


@pytest.mark.parametrize("left", [False, True])
def test_quarantine_is_told_of_even_where_it_is_empty(results: Json, left: bool) -> None:
    if not left:
        for screen in results["screening"]:
            screen["quarantined"] = []
    else:
        results["screening"][0]["quarantined"] = results["screening"][1]["quarantined"]
    page = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", render_html(results))))
    assert ("No sample of the pool was left out" in page) != left
    assert ("pool-bad-1 the clip is silent semantic axis, acoustic axis" in page) == left
