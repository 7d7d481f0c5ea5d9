"""The architecture study's analysis by hand, and its page from made results."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from itertools import product
from math import sqrt
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

from experiments.sound_pathway.contrast import (
    AXIS,
    COMPARISONS,
    MODALITY,
    Run,
    compare,
    compare_by_seed,
    difference_sd,
    estimate,
    welch,
    within_base,
)
from experiments.sound_pathway.measurement import FINAL, PILOT, runs_in, speech_only
from experiments.sound_pathway.page import page
from experiments.sound_pathway.record import Record
from experiments.sound_pathway.variants import VARIANTS
from undersong.statistics.power import detectable_difference, units_needed
from undersong.study.load import load_studies

ROOT = Path(__file__).parents[2]


def runs_of(variant: str, base: int, semantic, acoustic, text) -> list[Run]:
    """Runs of each side, at one step; `text`: closest in words, trained on text."""
    sides = {("semantic", "audio"): semantic, ("acoustic", "audio"): acoustic, ("semantic", "text"): text}
    return [Run(variant, base, *side, seed, 40, jsr) for side, jsrs in sides.items() for seed, jsr in enumerate(jsrs)]


def test_the_contrast_of_a_base_is_the_mean_of_its_runs_differences():
    runs = [
        *runs_of("codes", 1, [0.9, 0.6, 0.3], [0.3, 0.3, 0.3], [0.1, 0.1, 0.1]),
        *runs_of("codes", 2, [0.2, 0.2, 0.2], [0.8, 0.5, 0.2], [0.2, 0.2, 0.2]),
    ]
    assert within_base(runs, AXIS) == {"codes": {1: pytest.approx(0.3), 2: pytest.approx(-0.3)}}
    assert within_base(runs, MODALITY) == {"codes": {1: pytest.approx(0.5), 2: pytest.approx(0.0)}}


def test_the_contrast_is_taken_over_the_whole_curve():
    curve = [
        replace(run, step=step, jsr=run.jsr * share)
        for step, share in ((10, 0.0), (20, 0.5), (40, 1.0))
        for run in runs_of("codes", 1, [0.8], [0.2], [])
    ]
    assert within_base(curve, AXIS) == {"codes": {1: pytest.approx((0.0 + 0.3 + 0.6) / 3)}}
    with pytest.raises(SystemExit, match="base 1 of codes"):
        within_base(curve[1:], AXIS)


def test_a_side_that_lacks_a_seed_is_refused_and_one_that_was_not_trained_is_left_out():
    whole = runs_of("codes", 1, [0.9, 0.6], [0.3, 0.3], [])
    assert within_base(whole, MODALITY) == {}
    with pytest.raises(SystemExit, match="base 1 of codes"):
        within_base(whole[:-1], AXIS)


def test_bases_are_paired_by_the_seed_of_their_language_model():
    contrasts = {"both": {1: 0.1, 2: 0.3, 3: 0.9}, "codes": {1: 0.4, 2: 0.0, 3: 0.2}}
    seeds = {("both", 1): 1, ("both", 2): 2, ("both", 3): 5, ("codes", 1): 2, ("codes", 2): 1, ("codes", 3): 7}
    (one,) = compare_by_seed(contrasts, seeds)
    expected = stats.ttest_rel([0.1, 0.3], [0.0, 0.4])
    assert (one.first, one.second, one.pairs) == ("both", "codes", 2)
    assert (one.difference, one.p) == (pytest.approx(0.0), pytest.approx(expected.pvalue))
    assert one.low == pytest.approx(expected.confidence_interval().low)


def test_a_variants_interval_is_students_t_over_its_bases():
    found = estimate([0.1, 0.2, 0.6])
    half = stats.t.ppf(0.975, 2) * np.std([0.1, 0.2, 0.6], ddof=1) / sqrt(3)
    assert (found.n, found.mean) == (3, pytest.approx(0.3))
    assert found.low == pytest.approx(0.3 - half)
    assert found.high == pytest.approx(min(1.0, 0.3 + half))


VALUES = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=2, max_size=8)


@pytest.mark.filterwarnings("ignore:Precision loss")
@given(VALUES, VALUES)
def test_welch_agrees_with_another_implementation(first, second):
    difference, low, high, p = welch(first, second)
    assert difference == pytest.approx(fmean(first) - fmean(second))
    if len(set(first)) == 1 and len(set(second)) == 1:
        assert (low, high, p) == (None, None, None)
        return
    other = CompareMeans(DescrStatsW(first), DescrStatsW(second))
    assert (low, high) == pytest.approx(other.tconfint_diff(usevar="unequal"), abs=1e-9)
    assert p == pytest.approx(other.ttest_ind(usevar="unequal")[1], abs=1e-9)


def test_the_stated_comparisons_are_made_and_corrected_together():
    by_variant = {
        "continuous-keep": {1: 0.10, 2: 0.12, 3: 0.08},
        "continuous-discard": {1: 0.50, 2: 0.55, 3: 0.60},
        "codes": {1: 0.11, 2: 0.10, 3: 0.12},
    }
    found = compare(by_variant)
    assert [(one.first, one.second) for one in found] == [one[:2] for one in COMPARISONS[:2]]  # `both` is not there
    assert found[0].difference == pytest.approx(-0.45)
    smaller, larger = sorted(one.p for one in found)
    assert sorted(one.p_adjusted for one in found) == pytest.approx([2 * smaller, max(2 * smaller, larger)])


def test_the_spread_of_a_difference_pools_variances_over_variants():
    assert difference_sd({"a": {1: 0.0, 2: 0.2}, "b": {1: 0.5, 2: 0.5}}) == pytest.approx(sqrt(2 * 0.02 / 2))
    longer = difference_sd({"a": {1: 0.0, 2: 0.2}, "b": {1: 0.5, 2: 0.5, 3: 0.5}, "c": {1: 0.9}})
    assert longer == pytest.approx(sqrt(2 * 0.02 / 3))  # by degrees of freedom; one base shows no spread
    assert difference_sd({"a": {1: 0.0}}) is None


def test_the_page_says_how_many_bases_the_pilot_asks_for_and_what_five_detect():
    record = made_results(0.0)
    pilots = within_base([Run(**run) for run in record["pilot_runs"]], AXIS)
    sd = difference_sd(pilots)
    text = page({"bases": record["bases"], "pilot_runs": record["pilot_runs"]})
    assert f"takes **{units_needed(0.1, sd, comparisons=3)} bases per variant**" in text
    assert f"5 bases per variant detect {100 * detectable_difference(5, sd, comparisons=3):.1f} points" in text
    assert "Not answered yet" in text
    assert text.count("*Not measured yet.*") == 8
    assert "Not answered yet" in page({})


def made_results(effect: float, bases: int = 5) -> dict:
    """A record in which a projector that keeps voice lowers the contrast by `effect`."""
    rng = np.random.default_rng(5)
    runs, facts = [], []
    for variant, base in product(VARIANTS, range(1, bases + 1)):
        lowered = effect if variant == "continuous-keep" else 0.0
        closest, farther, typed = (level + 0.01 * rng.normal(size=3) for level in (0.6, 0.3, 0.2))
        runs += runs_of(variant, base, closest - lowered, farther, typed)
        quality = dict.fromkeys(("right_audio", "knows_audio", "jsr_audio", "over_refusal_audio"), 0.987)
        voice = {"voice_linear": 0.25 if variant == "continuous-discard" else 0.95, "voice_curved": 0.9}
        facts.append(
            {"variant": variant, "seed": base + 7, "base": base, **quality, **voice, "fails": [], "cpu_seconds": 60}
        )
    facts.append({**facts[0], "seed": 99, "base": None, "fails": ["right_audio"]})
    return {
        "bases": facts,
        "runs": [asdict(run) for run in runs],
        "pilot_runs": [asdict(r) for r in runs if r.base < 4],
    }


def rows(text: str, start: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith(start)]


def test_the_page_says_a_difference_that_is_there():
    record = made_results(0.25)
    text = page(record)
    runs = [Run(**run) for run in record["runs"] if run["variant"] == "continuous-keep"]
    assert re.search(
        "significant difference after correction: `continuous-keep` differs from `continuous-discard` by −2[456]", text
    )
    assert "`continuous-keep` differs from `codes`" in text
    assert "`both` differs" not in text
    axis, modality = rows(text, "| `continuous-keep` | 5 |")
    mean = fmean(run.jsr * (1 if run.axis == "semantic" else -1) for run in runs if run.trained_on == "audio") * 2
    assert float(axis[2].replace("−", "-")) == pytest.approx(100 * mean, abs=0.051)
    assert float(modality[2].replace("−", "-")) == pytest.approx(15, abs=2)
    assert rows(text, "| `continuous-discard` | 2")[0][1] == "25.0 (25.0–25.0)"  # the probe
    assert len(rows(text, "| `continuous-keep` 99 |")) == 1  # rejected seeds are listed
    assert "rejected: right_audio" in text
    assert not re.search(r"\{\w+\}", text)


def test_the_page_says_when_nothing_is_shown_and_when_bases_are_missing():
    assert "We found no significant difference between the variants" in page(made_results(0.0))
    few = page(made_results(0.25, bases=4))
    assert "Not answered yet" in few
    assert "after correction" not in few


def test_a_variant_that_was_not_made_leaves_the_others_answered():
    record = made_results(0.25)
    three = page(record | {"runs": [run for run in record["runs"] if run["variant"] != "both"]})
    assert "significant difference after correction: `continuous-keep` differs from `continuous-discard`" in three
    assert "Not made yet: both" in three
    begun = page(record | {"runs": [run for run in record["runs"] if (run["variant"], run["base"]) != ("both", 5)]})
    assert "Not answered yet" in begun


def test_runs_are_read_from_results_at_every_step_by_the_models_place_in_the_study():
    def run(model: str, kind: str, step: int, jsr: float) -> dict:
        entry = {"prompt_set": "harm", "modality": "audio", "rate": jsr}
        side = {"axis": "semantic", "train_modality": "audio", "seed": 2}
        return {"model": model, "kind": kind, **side, "step": step, "rates": [entry]}

    results = {"runs": [run("second", "base", 0, 0.0), *(run("second", "closest", step, 0.75) for step in (20, 40))]}
    expected = [Run("codes", 2, "semantic", "audio", 2, step, 0.75) for step in (20, 40)]
    assert list(runs_in(results, "codes", ("first", "second"))) == expected


def test_measuring_speech_alone_leaves_out_the_trainings_on_text_and_nothing_else():
    (study, *_) = load_studies(ROOT / FINAL).studies
    less = speech_only(study)
    assert set(study.tuning.modalities) == {"audio", "text"}
    assert less.tuning.modalities == ("audio",)
    assert less.model_copy(update={"tuning": study.tuning}) == study


def test_a_record_outlives_its_process_and_a_base_is_kept_once(tmp_path):
    record = Record(tmp_path / "results.json")
    record.base("codes", 2, None, {"fails": ["x"]})
    record.base("codes", 1, 1, {"fails": []})
    record.base("codes", 2, 2, {"fails": []})
    record.runs("runs", [Run("codes", 1, "semantic", "audio", 0, 40, 0.5)])
    again = json.loads((tmp_path / "results.json").read_text())
    assert Record(tmp_path / "results.json").data == again
    assert [(one["seed"], one["base"]) for one in again["bases"]] == [(1, 1), (2, 2)]


def test_the_study_names_the_folders_and_only_the_way_of_hearing_differs():
    files = {file: load_studies(ROOT / file).studies for file in (FINAL, PILOT)}
    for file, studies in files.items():
        assert [one.study.removeprefix(f"{file.stem.replace('_', '-')}-") for one in studies] == list(VARIANTS)
        settings = [one.model_dump(exclude={"study", "models"}) for one in studies]
        assert all(one == settings[0] for one in settings)
    for pilot, final in zip(files[PILOT], files[FINAL]):
        assert pilot.models == final.models[:3]
        assert len(final.models) >= 5
        assert pilot.prompt_sets["harm"].corpus != final.prompt_sets["harm"].corpus
