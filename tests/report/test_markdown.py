"""report.md: the page's own sentences for a pull request, with every name escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results_factory import make_recommendation
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.pages.markdown_table import escape_markdown
from undersong.report import page
from undersong.report.markdown import TITLE_PREFIX, defense_table_lines, render_markdown
from undersong.report.sections import advice, arm_chart, headline, provenance
from undersong.research.report import defenses
from undersong.results.schema import parse_results
from undersong.types import UndersongError

Json = dict[str, Any]


def tables(text: str) -> list[list[list[str]]]:
    """Every table's rows of cells."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.M)
    return [[re.split(r"(?<!\\) \| ", line.strip("| ")) for line in block.splitlines()] for block in blocks]


def test_it_says_what_the_page_says(results: Json) -> None:
    found, text = parse_results(results), render_markdown(results)
    first, charged = headline.build_headline(found), defenses.build_defense_table(found)
    assert charged is not None
    said = ["".join(part for part, _ in first.title), *(told for _, told in first.findings)]
    said += [text for one in advice.build_advice(found) for text in (one.what, one.why)]
    said += [*charged.recommended, *charged.findings, *provenance.build_provenance(found).notes]
    assert len(said) > 10
    assert all(escape_markdown(one) in text for one in said)
    assert text.startswith(f"{TITLE_PREFIX}demo\n\n**organism:af3 answered")
    assert re.search(r"\*\*Damage:\*\* .* \d+\.\d % \\\[\d+\.\d, \d+\.\d\\\]", text)  # the verdict's interval


def test_every_arm_has_both_rates_with_interval_and_n(results: Json) -> None:
    measured, costs = tables(render_markdown(results))
    assert [row[0] for row in measured[2:]][:2] == ["base", "closest 25 %, semantic axis, trained on audio"]
    assert len(measured) == 2 + 1 + 6
    assert measured[0] == ["Arm", "JSR, spoken", "JSR, typed", "runs", "n, prompts a run"]
    for row in measured[2:]:
        assert all(re.match(r"\d+\.\d % \\\[\d+\.\d, \d+\.\d\\\]", cell) for cell in row[1:3])
        assert row[4] == "108 in 36 clusters"
    assert len(costs) == 2 + 6
    assert len({len(row) for row in costs}) == 1


def test_arms_that_can_be_told_from_the_base_say_so(results: Json) -> None:
    table = arm_chart.build_arm_table(parse_results(results))
    assert table is not None
    rows = {row[0]: str(row[1]) for row in table.rows}
    assert rows["closest 25\u202f%, semantic axis, trained on audio"].endswith("above the base")
    assert not rows["base"].endswith("the base")


def test_the_terminal_has_the_same_table_of_defenses_unescaped(results: Json) -> None:
    results["defense_tradeoffs"][1] |= {"max_cost": 0.021, "note": "layer 3 of 4"}
    results["recommendations"] = [make_recommendation("audio", None, "None is shown to be safe.")]
    results["provenance"]["cpu_seconds_by_defense"] = {
        "distant data": {"training": {"value": 12.5, "low": 11.0, "high": 14.0}, "generation": {"value": 3.0}}
    }
    *lines, blank, recommended = defense_table_lines(results)
    assert (blank, recommended) == ("", "Recommended: none. None is shown to be safe.")
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in lines)
    assert head[-3:] == ["Cost, at most", "Cost, CPU s to make", "Cost, CPU s to ask"]
    (found,) = (row for row in rows if row[0] == "Trained on audio: Distant data")
    assert found[-3:] == ["2.1", "12.5 [11.0,\u00a014.0]", "3.0"]
    assert found[1].endswith("layer 3 of 4")
    rate = results["defense_tradeoffs"][1]["jsr"]["audio"]
    assert found[2].startswith(f"{100 * rate['value']:.1f} [{100 * rate['low']:.1f},\u00a0{100 * rate['high']:.1f}]")
    assert {" ".join(line.replace("\\", "").split()) for line in render_markdown(results).splitlines()} >= {
        " ".join(line.split()) for line in lines if not line.startswith("| ---")
    }


def test_failed_replies_stand_with_the_rate(results: Json) -> None:
    for run in results["runs"]:
        for row in run["rates"]:
            row.update(n=row["n"] - row["error"], error=0, lost=0, max_rate=row["rate"])
    assert "failures counted" not in render_markdown(results)
    for row in results["runs"][0]["rates"]:
        row.update(n=row["n"] + 20, error=20, lost=20, max_rate=row["rate"] + 0.1)
    assert "failures counted" in render_markdown(results)


@pytest.mark.parametrize("runs", [False, True])
def test_what_was_not_measured_is_left_out(results: Json, runs: bool) -> None:
    results["defense_tradeoffs"], results["notes"], results["comparisons"] = [], [], []
    results["runs"] = [run for run in results["runs"] if run["kind"] == "base"] if runs else []
    text = render_markdown(results)
    assert ("## Arms" in text) == runs
    assert "## Defenses" not in text
    assert "Caveats" not in text
    assert "None" not in text


def test_names_from_elsewhere_do_nothing(results: Json) -> None:
    hostile = "<img src=x> | [a](http://b) **b** `c` @everyone\n# head"
    results["study"] |= {"name": hostile, "models": [hostile]}
    results["notes"] = [hostile]
    results["defense_tradeoffs"][1]["defense"] = hostile
    text = render_markdown(results)
    assert not re.search(r"(?<!\\)<img|(?<!\\)\[a|(?<!\\)`c|@e|^# head", text, re.M)
    assert all(len({len(row) for row in table}) == 1 for table in tables(text))


def test_it_holds_no_reply_and_no_prompt(results: Json) -> None:
    results["examples"][0]["reply"] = "a secret reply"
    assert "a secret reply" in page.render_html(results, show_replies=True)
    text = render_markdown(results)
    assert "a secret reply" not in text
    assert results["examples"][0]["prompt_text"] not in text


def test_many_arms_stay_in_order(make_results: Callable[..., Json]) -> None:
    results = make_results(axes=("semantic", "acoustic"))
    measured, *_ = tables(render_markdown(results))
    assert len(measured) == 2 + 1 + 12


def test_the_verb_writes_it_and_nothing_over_other_files(results: Json, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text(json.dumps(results))

    def call(target: Path) -> None:
        CliRunner().invoke(app, ["report", str(file), "--markdown", str(target)], catch_exceptions=False)

    for target in (tmp_path / "mine.md", tmp_path / "mine.md", tmp_path):
        call(target)
    assert (tmp_path / "mine.md").read_text() == (tmp_path / "report.md").read_text() == render_markdown(results)
    (tmp_path / "notes.md").write_text("mine")
    with pytest.raises(UndersongError, match="is no report; give --markdown another name"):
        call(tmp_path / "notes.md")
    assert (tmp_path / "notes.md").read_text() == "mine"
