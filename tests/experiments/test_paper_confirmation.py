"""The registered test on new bases: its design, its rule and its section, out of made results."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from organism_results import PROMPTS, write
from scipy import stats

from experiments.paper import designs
from experiments.paper.agreement import Estimate
from experiments.paper.confirmation import confirmation_lines, primary_results
from experiments.paper.designs import CONFIRMATION, DEMO_DOSE
from experiments.paper.evidence import Evidence
from experiments.paper.stratified import stratified_mean

BASES = range(200, 208)
LEVELS = {"base": 0.02, "closest": 0.6, "random": 0.5, "distant": 0.3}
Rate = Callable[[str, Mapping[str, Any]], int]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results folder of the design, without results; eight bases of each architecture are listed."""
    for name in CONFIRMATION.architectures:
        entries = [{"accepted": True, "folder": f"{name}-{seed}"} for seed in BASES]
        (tmp_path / f"{name}-from-200.json").write_text(json.dumps(entries))
    monkeypatch.setattr(designs, "BASES", tmp_path)
    return tmp_path / CONFIRMATION.name


def world(levels: Mapping[str, float], spread: float = 0.15) -> Rate:
    """Rates by kind of data, which vary by architecture, base and run."""

    def rate(organism: str, run: Mapping[str, Any]) -> int:
        seed = [*organism.encode(), int(run["seed"] or 0), *run["kind"].encode()]
        noise = spread * np.random.default_rng(seed).normal()
        return int(PROMPTS * float(np.clip(levels[run["kind"]] + noise, 0, 1)))

    return rate


def test_each_base_has_three_runs_with_random_data_of_their_own(results: Path) -> None:
    study = CONFIRMATION.studies("distant")[0]
    assert (study.study, study.models) == ("organism-distant-af3-200", (str(results.parent / "af3-200"),))
    assert study.tuning.seeds == study.tuning.draws == (200, 1200, 2200)
    assert study.tuning.learning_rate == 2e-3
    assert study.selection.axes == ("semantic",)
    assert set(study.evaluation.system_prompts) == {"plain"}
    assert DEMO_DOSE.runs_per_base == 1


def test_differences_that_are_there_are_significant_over_all_bases(results: Path) -> None:
    made = write(CONFIRMATION, results, world(LEVELS), files=CONFIRMATION.files)
    found = primary_results(Evidence(results))
    assert list(found) == ["closest minus distant", "closest minus random"]
    (mean, p), _ = found.values()
    assert (mean.units, p < 0.01, mean.low > 0) == (24, True, True)

    def jsr(study: Mapping[str, Any], kind: str) -> float:
        runs = (run for run in study["runs"] if run["kind"] == kind)
        return fmean(
            rate["rate"]
            for run in runs
            for rate in run["rates"]
            if (rate["prompt_set"], rate["modality"]) == ("harm", "audio")
        )

    by_base = {name: jsr(study, "closest") - jsr(study, "distant") for name, study in made.items()}
    strata = [[value for name, value in by_base.items() if f"-{one}-" in name] for one in CONFIRMATION.architectures]
    assert mean.value == pytest.approx(fmean(map(fmean, strata)))
    section = "\n".join(confirmation_lines(results))
    assert re.search(
        r"rather than on the most distant speech changed the JSR by \+2\d\.\d points .*; significant", section
    )
    assert len(re.findall(r"^\| (?:af3|qwen|kimi) \| 8 \| ", section, re.M)) == 6
    assert re.search(r"^\| all three \| 24 \| \+", section, re.M)


def test_no_difference_is_not_significant_and_no_results_give_no_section(results: Path) -> None:
    assert confirmation_lines(results) == []
    write(CONFIRMATION, results, world(LEVELS | {"distant": 0.6, "random": 0.6}), files=CONFIRMATION.files)
    section = "\n".join(confirmation_lines(results))
    assert section.count("; not significant after correction") == 2


def test_the_mean_over_architectures_is_that_of_welch() -> None:
    """With two strata, the sum of the means is Welch's difference of one and minus the other."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.1, 0.2, 12), rng.normal(0.3, 0.05, 7)
    strata = [
        Estimate(side.mean(), None, None, None, len(side), len(side), "runs", side.std(ddof=1)) for side in (one, other)
    ]
    welch = stats.ttest_ind(one, -other, equal_var=False)
    interval = welch.confidence_interval()
    found = stratified_mean(strata)
    assert found is not None
    assert found.value == pytest.approx((one.mean() + other.mean()) / 2)
    assert (found.low, found.high) == (pytest.approx(interval.low / 2), pytest.approx(interval.high / 2))
    assert (found.p, found.units) == (pytest.approx(welch.pvalue), 19)
    assert stratified_mean(strata[:0]) is None
