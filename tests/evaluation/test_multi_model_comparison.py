"""Several models against one: each as it is alone, corrected together."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.multitest import multipletests
from typer.testing import CliRunner

from undersong.cli.app import app
from undersong.evaluation.comparison import compare_verdicts
from undersong.evaluation.comparison_report import comparison_json
from undersong.evaluation.multi_model_comparison import compare_many, comparison_markdown, multi_model_json
from undersong.evaluation.verdicts import write_verdicts
from undersong.types import UndersongError, Verdict

RATES = {"mild": 0.1, "bad | worst": 0.6, "same": 0.05}


def verdicts(rate: float, seed: int, harmful: bool = True, n: int = 60) -> list[Verdict]:
    rng = np.random.default_rng(seed)
    broken = "jailbreak" if harmful else "refusal"
    other = "refusal" if harmful else "answer"
    words = [broken if rng.random() < rate else other for _ in range(n)]
    return [
        Verdict(f"p{i}", "harm", harmful, f"c{i // 3}", "audio", "plain", "exact", word) for i, word in enumerate(words)
    ]


@pytest.fixture
def arms() -> dict[str, list[Verdict]]:
    return {name: verdicts(rate, i) for i, (name, rate) in enumerate(RATES.items())}


def test_each_is_what_it_is_alone_and_p_is_corrected_over_all(arms) -> None:
    before = verdicts(0.05, 9)
    found = compare_many(before, arms)
    for arm in found:
        assert arm.comparison == compare_verdicts(before, arms[arm.name])
    wanted = multipletests([arm.comparison.paired.clustered_p for arm in found], method="holm")[1]
    assert [arm.p_adjusted for arm in found] == pytest.approx(wanted.tolist())
    told = multi_model_json(found)
    assert [one["name"] for one in told["arms"]] == list(RATES)
    assert {key: told["arms"][0][key] for key in ("b", "c", "p")} == {
        key: comparison_json(found[0].comparison)[key] for key in ("b", "c", "p")
    }


def test_the_markdown_is_one_table_whatever_a_file_is_called(arms) -> None:
    lines = comparison_markdown(compare_many(verdicts(0.05, 9), arms), "base").splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + 1 + len(RATES)
    cells = {line.replace("\\|", "").count("|") for line in table}
    assert len(cells) == 1
    assert "3 arms corrected together" in lines[-1]


def test_a_model_that_failed_is_not_shown_as_safe(arms) -> None:
    lost = [replace(one, verdict="error") for one in verdicts(0.05, 9)]
    text = comparison_markdown(compare_many(verdicts(0.05, 9), {**arms, "dead": lost}), "base")
    assert "| 60, 0, 0 | 0.0% to 100.0% |" in text
    assert re.search(r"dead: The difference is between .* whichever way the 60 failed or unjudged ones went", text)
    assert text.count("whichever way the ") == 1


def test_what_is_no_family_is_refused(arms) -> None:
    with pytest.raises(UndersongError, match="no verdict table to compare"):
        compare_many(verdicts(0.1, 0), {})
    with pytest.raises(UndersongError):
        compare_many(verdicts(0.1, 0), {**arms, "benign": verdicts(0.1, 1, harmful=False)})


def test_the_verb_takes_any_number_of_files(arms, tmp_path: Path) -> None:
    files = []
    for i, made in enumerate([verdicts(0.05, 9), *arms.values()]):
        files.append(str(tmp_path / f"{i}.parquet"))
        write_verdicts(made, Path(files[-1]))
    run = CliRunner().invoke
    one = run(app, ["compare", *files[:2], "--json"])
    assert json.loads(one.stdout)["scope"] == "model"
    many = json.loads(run(app, ["compare", *files, "--json"]).stdout)
    assert len(many["arms"]) == 3
    assert many["arms"][0]["difference"] == json.loads(one.stdout)["difference"]
    assert run(app, ["compare", *files, "--markdown"]).stdout.startswith("| model |")
    assert "corrected together" in run(app, ["compare", *files]).stdout
    twice = run(app, ["compare", files[0], files[1], files[1]])
    assert isinstance(twice.exception, UndersongError)
