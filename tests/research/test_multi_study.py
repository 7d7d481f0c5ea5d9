"""Several studies on one page: each against its own base, and said where they must not be compared."""

from __future__ import annotations

import copy
import html
import re
from collections.abc import Callable
from typing import Any

import pytest
from results_factory import make_results as make_file

from undersong.pages.svg import difference_strip, symmetric_limit
from undersong.research.report.multi_study import render_multi_study_html
from undersong.research.report.study_comparison import compare_studies
from undersong.results.schema import parse_results
from undersong.types import UndersongError

Json = dict[str, Any]


def named(results: Json, name: str, **study: Any) -> Json:
    other = copy.deepcopy(results)
    other["study"] |= {"name": name, **study}
    return other


def text_of(page: str) -> str:
    return re.sub(
        r"\s+", " ", html.unescape(re.sub(r"<style>.*?</style>|<script>.*?</script>|<[^>]*>", " ", page, flags=re.S))
    )


def rates_of(page: str, block: str) -> list[str]:
    """The rates beside the pictures of one study, spoken prompts."""
    part = (
        page.split(f'<p class="strip-title"><b>{block}</b>')[1]
        .split('<p class="strip-title">')[0]
        .split("</figure>")[0]
    )
    return re.findall(r'class="howmuch"><b>([^<]*)</b>', part)


def test_every_study_stands_with_its_own_numbers(results: Json, make_results: Callable[..., Json]) -> None:
    calm = named(make_results(effect=0.1), "calm")
    page = render_multi_study_html([("a", results), ("b", calm)])
    assert "<title>demo and calm – undersong report</title>" in page
    found = {name: rates_of(page, name) for name in ("demo", "calm")}
    assert all(len(rates) == 5 for rates in found.values())  # base, worst, random, distant, system text
    worst = {name: max(float(rate.split("\u202f")[0]) for rate in rates) for name, rates in found.items()}
    assert worst["demo"] > 80 > 20 > worst["calm"]
    told = "The worst arm is in 1 above the base and in 1 not shown to differ from the base, of 2 studies."
    assert told in text_of(page)
    assert "is not comparable with" not in text_of(page)
    assert ">not comparable</span>" not in page


def test_models_of_one_study_are_not_averaged(results: Json, make_results: Callable[..., Json]) -> None:
    two, other = copy.deepcopy(results), make_results(effect=0.1)
    for run in other["runs"]:
        run["model"] = "organism:other"
    two["runs"] += other["runs"]
    two["study"] |= {"name": "two", "models": [*two["study"]["models"], "organism:other"]}
    page = render_multi_study_html([("a", results), ("b", two)])
    alone = rates_of(page, "demo")
    blocks = page.split('<p class="strip-title"><b>two</b>')
    assert len(blocks) == 5  # two models on spoken, and on typed prompts
    spoken = [
        re.findall(r'class="howmuch"><b>([^<]*)</b>', block.split('<p class="strip-title">')[0].split("</figure>")[0])
        for block in blocks[1:3]
    ]
    assert spoken[0] == alone
    assert max(float(rate.split("\u202f")[0]) for rate in spoken[1]) < 20
    assert "of 3 models in 2 studies." in text_of(page)
    assert "two: organism:other" in text_of(page)


def test_the_same_question_is_one_row_and_turned_alike(results: Json) -> None:
    other = named(results, "other")
    for one in other["comparisons"]:  # the same facts, written A - B
        one.update(
            minuend="a",
            difference=-one["difference"],
            low=one["high"] and -one["high"],
            high=one["low"] and -one["low"],
        )
        for pair in one["estimates"]:
            pair["difference"] = pair["a"] - pair["b"]
    other["comparisons"] += [{**other["comparisons"][0], "question": "Only here?", "id": "only here"}]
    page = render_multi_study_html([("a", results), ("b", other)])
    rows = re.findall(r'<th scope="row">Do closest samples do more.*?</tr>', page, re.S)
    assert len(rows) == 2  # audio, text
    for row in rows:
        first, second = re.findall(r'<td class="num">(.*?)</td>', row, re.S)
        assert first == second
        assert re.search(r"\[.*\].*n = 3, adjusted p", first, re.S)
    assert "1 question more is asked by one study only" in text_of(page)


def test_an_interval_that_leaves_the_axis_is_cut_there() -> None:
    """One of a few runs may reach beyond 100 points; it must not be drawn over its neighbors."""
    picture = difference_strip(0.4, -1.3, 2.1, symmetric_limit([0.4, -1.3, 2.1]))
    assert 'x1="0.00%" x2="100.00%" y1="50%"' in picture


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"judge": "keywords"}, "judge keywords, where demo has exact"),
        ({"protocol": "published"}, "protocol published, where demo has uniform"),
        (
            {"config": {"evaluation": {"max_new_tokens": 12, "system_prompts": {"plain": "be kind"}}}},
            "max new tokens 12, where demo has 8",
        ),
        ({"config": {"prompt_sets": {"harm": {"corpus": "x" * 80}}}}, "other harmful prompts than demo"),
    ],
)
def test_what_must_not_be_compared_is_said(results: Json, change: Json, said: str) -> None:
    results["study"]["config"] = {
        "evaluation": {"max_new_tokens": 8, "system_prompts": {"plain": "be kind"}},
        "prompt_sets": {"harm": {"corpus": "one"}},
    }
    page = text_of(render_multi_study_html([("a", results), ("b", named(results, "other", **change))]))
    assert "other is not comparable with demo:" in page
    assert said in page
    assert "demo is not comparable" not in page


def test_other_prompts_are_seen_by_their_number(results: Json) -> None:
    other = named(results, "other")
    for run in other["runs"]:
        for row in run["rates"]:
            row["n"], row["other"] = row["n"] + 12, row["other"] + 12
    assert "number of prompts 120 in 36 clusters, where demo has 108 in 36 clusters" in text_of(
        render_multi_study_html([("a", results), ("b", other)])
    )


def test_models_are_not_compared_under_the_published_protocol(results: Json) -> None:
    results["study"]["protocol"] = "published"
    page = text_of(render_multi_study_html([("a", results), ("b", named(results, "other"))]))
    assert "asks every model in its own way" in page


def test_studies_of_one_name_are_told_apart(results: Json) -> None:
    found = compare_studies(
        [("out/a", parse_results(results)), ("out/b", parse_results(results)), ("out/b", parse_results(results))]
    )
    assert [one.name for one in found] == ["demo (out/a)", "demo (out/b) 2", "demo (out/b) 3"]


def test_defenses_stand_a_row_each_with_their_price(results: Json) -> None:
    other = named(results, "other")
    other["defense_tradeoffs"][1]["max_cost"] = 0.042
    page = render_multi_study_html([("a", results), ("b", other)])
    body = page.split("Defenses of every study: safety against cost</span>")[1].split("</table>")[0]
    assert body.count('<th scope="row">demo</th>') == body.count('<th scope="row">other</th>') == 6
    assert 'data-v="4.2"' in body


def test_a_study_without_prompts_and_broken_ones(results: Json) -> None:
    empty = make_file([], study={"name": "empty"})
    assert "2 studies compared" in text_of(render_multi_study_html([("a", results), ("b", empty)])).lower()
    assert "so there is nothing to compare" in text_of(render_multi_study_html([("b", empty), ("c", empty)]))
    with pytest.raises(UndersongError, match="out/b has the schema"):
        render_multi_study_html([("a", results), ("out/b", {"schema": "?"})])


def test_names_from_elsewhere_do_nothing(results: Json) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    other = named(results, evil, models=[evil], judge=evil)
    other["comparisons"] = [{**one, "question": evil} for one in other["comparisons"]]
    page = render_multi_study_html([(evil, results), (evil, other), (evil, other)])
    assert page.count("<script") == 1
    assert "<img" not in page
