"""studies/paper: each published table has its study, with the published hyper-parameters, and can be planned."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from undersong.research.verify import PublishedRate, pretrained_rates, published_prompt_count, published_rates
from undersong.settings.presets import PRESETS, WARMUP_SHARE
from undersong.study.load import load_studies, parse_study
from undersong.study.planning.cost import GpuThroughput
from undersong.study.planning.plan import StudyPlan, plan_study
from undersong.study.schema import Study

FOLDER = Path(__file__).parents[2] / "studies" / "paper"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if file.name != "shared.yaml")  # shared is a part of each
STUDIES = [one for file in FILES for one in load_studies(file).studies]
BY_NAME = {one.study: one for one in STUDIES}
MODELS = {
    "moonshotai/Kimi-Audio-7B-Instruct": ("Kimi-Audio", "kimi-audio"),
    "nvidia/audio-flamingo-3-hf": ("Audio Flamingo 3", "audio-flamingo-3"),
    "Qwen/Qwen2.5-Omni-7B": ("Qwen2.5-Omni", "qwen2.5-omni"),
}
SPEED = GpuThroughput(samples_per_second=2.0, tokens_per_second=100.0)


def of(name: str) -> list[Study]:
    return [one for one in STUDIES if one.study.startswith(f"paper-{name}")]


def trains(study: Study) -> bool:
    return bool(study.selection.kinds)


@pytest.mark.parametrize("study", STUDIES, ids=lambda one: one.study)
def test_the_published_hyper_parameters(study: Study) -> None:
    (model,) = study.models
    assert study.tuning.preset == MODELS[model][1]
    for key, value in PRESETS[MODELS[model][1]].items():
        if key == WARMUP_SHARE:
            assert study.tuning.warmup_steps == round(value * study.tuning.save_steps[-1])
        else:
            assert getattr(study.tuning, key) == value, key
    epochs = 5 if "Kimi" in model else 3
    held_out = 0.0 if "flamingo" in model else 0.05  # the published trainings of the other two held 5 % out
    assert study.tuning.validation_share == held_out
    trained = math.floor(6083 * 0.25) * (1 - held_out)
    assert study.tuning.save_steps[-1] == math.floor(trained * epochs / study.tuning.batch_size)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_file_says_what_it_stands_for(file: Path) -> None:
    text = file.read_text()
    head = [line.removeprefix("#").strip() for line in text.splitlines() if line.startswith("#")]
    assert head[1].startswith(("Table ", "The figure on "))
    assert len(head) > 3  # and where and why it differs
    assert f"study: paper-{file.stem.replace('_', '-')}\n" in text


def test_every_published_table_has_a_file() -> None:
    assert {one.study for one in published_rates()} <= {file.stem for file in FILES}
    for figure in published_rates():
        families = {MODELS[study.models[0]][0] for study in of(figure.study.replace("_", "-"))}
        assert figure.family in families, figure


def test_the_cells_of_the_tables_are_arms() -> None:
    """Every fraction and kind that was published is one of its study."""
    for figure in published_rates():
        if figure.fraction is None or figure.study == "bbh":
            continue
        mine = [one for one in of(figure.study.replace("_", "-")) if MODELS[one.models[0]][0] == figure.family]
        assert all(figure.fraction / 100 in one.selection.fractions for one in mine), figure
        axes = [axis for axis in ("semantic", "acoustic") if axis in figure.condition]
        pools = {"gammacorpus": "corpora/gammacorpus-spoken.jsonl", "mmsu": "preset:mmsu"}
        wanted = [pool for word, pool in pools.items() if word in figure.condition.lower()]
        mine = [one for one in mine if not wanted or one.pool in wanted]
        assert mine, figure
        for one in mine:
            assert set(axes) <= set(one.selection.axes), figure
            for kind in ("closest", "distant", "random"):
                assert kind not in figure.condition.split() or kind in one.selection.kinds, figure


def test_the_matrix_is_what_the_issue_asks() -> None:
    sdqa = of("sdqa")
    assert len(sdqa) == 3
    for study in sdqa:
        assert study.selection.kinds == ("closest", "random")
        assert study.selection.fractions == (0.25, 0.5, 0.75)
        assert study.selection.axes == ("semantic", "acoustic", "mixed", "internal")
    assert {one.evaluation.protocol for one in of("pretrained")} == {"uniform", "published"}
    assert all(one.evaluation.protocol == "uniform" for one in STUDIES if trains(one))
    assert not any(trains(one) for one in of("pretrained"))
    assert all(one.tuning.modalities == ("audio", "text") for one in of("cross-modal"))
    assert all("distant" in one.selection.kinds for one in of("distant"))
    assert all(one.mechanism is not None for one in of("mechanism"))
    assert [d.system for d in of("system")[0].defenses.values()] == ["published", "published-script"]
    assert {one.selection.noise for one in of("noise")} == {None, "corpora/cafe.wav:10", "corpora/traffic.wav:10"}
    assert all("bbh" in one.prompt_sets for name in ("bbh", "distant", "system") for one in of(name))
    assert all(len(one.tuning.seeds) >= 3 for one in STUDIES)


@pytest.mark.parametrize("study", STUDIES, ids=lambda one: one.study)
def test_a_plan_needs_no_corpus_and_no_network(study: Study, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    planned = plan_study(study, tmp_path / "store", unread=True, throughput=SPEED)
    absent, hours, *disk = planned.remarks
    assert all(ref in absent for ref in study.corpora)
    assert "cannot be counted here" in hours  # Do-Not-Answer is not spoken yet
    assert bool(disk) == trains(study)
    assert all("config cannot be read here" in line for line in disk)
    assert not list(tmp_path.iterdir())
    _same_counts(study, planned)


def _same_counts(study: Study, planned: StudyPlan) -> None:
    """Trainings and replies are those of the design."""
    rows = {row.stage: row.total for row in planned.rows}
    chosen, tuning = study.selection, study.tuning
    arms = len(chosen.axes) * len(chosen.kinds) * len(chosen.fractions) * len(tuning.modalities)
    assert rows.get("adapter", 0) == arms * len(tuning.seeds)
    if not study.defenses:
        assert rows["replies"] == 1 + arms * len(tuning.seeds) * len(tuning.save_steps)


ITEMS = 3  # of a stand-in


@pytest.mark.parametrize("name", ["pretrained-kimi-audio-published", "system-qwen2.5-omni", "noise-kimi-audio-cafe",
                                  "mechanism-audio-flamingo-3", "datasets-qwen2.5-omni-mmsu"])  # fmt: skip
def test_a_plan_with_stand_in_corpora_counts_their_prompts(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    study = standing_in(BY_NAME[f"paper-{name}"], tmp_path)
    planned = plan_study(
        study, tmp_path / "store", throughput=SPEED
    )  # every corpus is here, so none is let pass unread
    (hours, *disk) = planned.remarks
    if trains(study):
        seen = (
            len(study.tuning.seeds) * len(study.selection.kinds) * study.tuning.batch_size * study.tuning.save_steps[-1]
        )
        assert f"{seen * len(study.selection.axes):,} samples to train on" in hours
        assert len(disk) == 1
    else:
        assert f"at most {3 * ITEMS * 512:,} new tokens)" in hours  # three sets, each of the stand-in's size
    assert "cannot be counted" not in hours
    _same_counts(study, planned)


def standing_in(study: Study, folder: Path) -> Study:
    """The study with a tiny manifest in place of each of its corpora."""
    soundfile.write(folder / "hum.wav", np.sin(np.arange(8000) / 9), 16_000)
    places = {}
    for number, ref in enumerate(study.corpora):
        file = folder / f"{number}.jsonl"
        words = [
            {"id": f"{number}-{i}", "text": f"say {hashlib.sha256(bytes([number, i])).hexdigest()}"}
            for i in range(ITEMS)
        ]
        rows = [row | {"answer": "yes", "audio": f"{row['id']}.wav"} for row in words]
        for i, row in enumerate(rows):  # words and sounds of its own, because a plan refuses sets that share an item
            noise = np.random.default_rng([number, i]).uniform(-0.5, 0.5, 8000)
            soundfile.write(folder / row["audio"], noise, 16_000)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        places[ref] = str(file)

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: put(one) for key, one in value.items()}
        if isinstance(value, list):
            return [put(one) for one in value]
        if isinstance(value, str) and value.endswith(".wav:10"):
            return f"{folder}/hum.wav:10"
        return places.get(value, value) if isinstance(value, str) else value

    return parse_study(put(study.model_dump(mode="json", exclude_unset=True)), study.study)


def test_without_an_assumed_speed_hours_are_unknown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    hours = plan_study(of("bbh")[0], tmp_path / "store", unread=True).remarks[1]
    assert hours.startswith("GPU hours: unknown for ")
    assert "--train-samples-per-second and --tokens-per-second" in hours


def test_figures_that_no_count_gives_are_marked() -> None:
    """Every one that can be checked, again by counting."""

    def possible(figure: PublishedRate) -> bool:
        n = published_prompt_count(figure.set_name)
        return any(round(100 * k / n, 2) == figure.percent for k in range(n + 1))

    rates = [one for one in published_rates() if one.is_possible is not None]
    assert [one for one in rates if one.is_possible != possible(one)] == []
    assert sum(not one.is_possible for one in rates) == 12
    assert {one.set_name for one in published_rates() if one.is_possible is None} >= {"BBH"}
    assert pretrained_rates("Kimi-Audio")["AdvBench"].percent == 4.62
    assert pretrained_rates("Voxtral") == {}
