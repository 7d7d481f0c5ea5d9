"""The three lines above the report's chart: what was tested, the result, what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from undersong.report.sections.headline import build_headline
from undersong.results.schema import parse_results

Json = dict[str, Any]


@pytest.fixture
def lines(make_results: Callable[..., Json]) -> Callable[..., dict[str, str]]:
    return lambda **options: dict(build_headline(parse_results(make_results(**options))).first_screen)


def test_the_lines_say_what_was_tested_what_came_out_and_what_to_do(lines: Callable[..., dict[str, str]]) -> None:
    found = lines()
    assert list(found) == ["Tested", "Result", "What to do"]
    assert "spoken harmful requests, by the judge exact: " in found["Tested"]
    assert " before fine-tuning, and in 6 arms of " in found["Tested"]
    assert found["Result"].startswith("In the worst arm, a change of +")
    assert " points [" in found["Result"]
    assert found["What to do"].startswith("Do not ship the worst arm as it is.")


def test_a_base_alone_has_no_result(make_results: Callable[..., Json]) -> None:
    results = make_results()
    results["runs"] = [run for run in results["runs"] if run["kind"] == "base"]
    results["comparisons"] = []
    found = dict(build_headline(parse_results(results)).first_screen)
    assert "Result" not in found
    assert found["Tested"].endswith(", without fine-tuning.")
    assert found["What to do"] == "Train something."


def test_a_page_without_harmful_prompts_has_no_lines(make_results: Callable[..., Json]) -> None:
    results = make_results()
    for run in results["runs"]:
        run["rates"] = [rate for rate in run["rates"] if not rate["harmful"]]
    results["comparisons"] = []
    assert build_headline(parse_results(results)).first_screen == ()
