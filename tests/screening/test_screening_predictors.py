"""Screening by axes that run the model: the same numbers as in Python, and what must be given."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pages import page
from screen_call import screen

from undersong.corpora.manifest import write_manifest
from undersong.corpora.registry import open_corpus
from undersong.models.load import load_model
from undersong.predictors.registry import PredictorSettings
from undersong.predictors.sample_scores import score_samples
from undersong.settings.defaults import ORGANISM_REFUSALS
from undersong.stages.engine import Engine
from undersong.types import Sample, UndersongError

MODEL, SYSTEM = "organism:af3", "you are a helpful assistant"
AXES = {
    "influence": "influence:32",
    "matching": "gradient-matching:32,anchors=2",
    "states": "decoder:3",
    "leaning": "refusal",
}
Sides = tuple[list[Sample], list[Sample]]


@pytest.fixture(scope="module")
def sides() -> Sides:
    """Four benign requests of each quadrant in one voice, and five harmful ones."""
    pool = [sample for sample in open_corpus("organism:pool").samples if sample.speaker == "A"]
    quadrants = {value for sample in pool for name, value in sample.labels if name == "quadrant"}
    chosen = [
        sample
        for quadrant in sorted(quadrants)
        for sample in [sample for sample in pool if ("quadrant", quadrant) in sample.labels][:4]
    ]
    return chosen, list(open_corpus("organism:reference").samples[::10])


@pytest.fixture(scope="module")
def files(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sides")
    for name, samples in zip(("pool", "harm"), sides):
        write_manifest(samples, folder / f"{name}.parquet")
    return folder / "pool.parquet", folder / "harm.parquet"


def test_every_predictor_is_an_axis_with_the_numbers_of_its_function(sides: Sides, files, tmp_path: Path) -> None:
    axes = {**AXES, "words": "tfidf", "ears": "internal"}
    screened = screen(*files, tmp_path / "out", axes=axes, model=MODEL, system_prompt=SYSTEM, score="knn:2")
    (fingerprint,) = screened.report["axis_fingerprints"]
    assert [pair["a"] for pair in fingerprint["pairs"]] == ["words"]  # what needs the model is no reference
    settings = PredictorSettings(system_text=SYSTEM, refusal_texts=ORGANISM_REFUSALS)
    model = load_model(MODEL)
    for axis, spec in AXES.items():
        table = screened.tables[axis].to_pydict()
        assert table["id"] == [sample.id for sample in sides[0]]
        wanted = score_samples(spec, model, *sides, "audio", settings)
        measured = (
            1 - np.array(table["centroid_distance"]) if axis == "states" else -np.array(table["centroid_distance"])
        )
        np.testing.assert_allclose(measured, wanted, rtol=2e-3, atol=2e-3 * np.abs(wanted).max())
        assert np.argsort(table["rank"])[0] == wanted.argmax()  # the most damaging sample is the closest


def test_typed_prompts_need_no_audio(sides: Sides, tmp_path: Path) -> None:
    from dataclasses import replace

    for name, samples in zip(("pool", "harm"), sides):
        write_manifest([replace(sample, audio=None) for sample in samples], tmp_path / f"{name}.parquet")
    corpora = tmp_path / "pool.parquet", tmp_path / "harm.parquet"
    axes = {"typed": "decoder,modality=text"}
    assert len(screen(*corpora, tmp_path / "out", axes=axes, model=MODEL).tables["typed"]) == len(sides[0])
    with pytest.raises(UndersongError, match="no audio"):
        screen(*corpora, tmp_path / "out", axes={"spoken": "decoder"}, model=MODEL)


def test_with_a_model_the_best_predictor_ranks_first_if_all_corpora_have_replies(
    sides: Sides, files, tmp_path: Path
) -> None:
    from dataclasses import replace

    screened = screen(*files, tmp_path / "out", model=MODEL)
    assert list(screened.tables) == ["influence", "semantic", "acoustic"]
    write_manifest([replace(sample, answer=None) for sample in sides[0]], tmp_path / "mute.parquet")
    with pytest.raises(UndersongError, match="No axis uses the model organism:af3; add one"):
        screen(tmp_path / "mute.parquet", files[1], tmp_path / "mute", model=MODEL)


def test_what_must_be_given_is_said(files, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UndersongError, match="Axis leaning runs a model on prompts; name the model with --model"):
        screen(*files, out, axes={"leaning": "refusal"})
    with pytest.raises(UndersongError, match="runs the model in one process; leave --engine and --shard out"):
        screen(
            *files, out, axes={"leaning": "refusal"}, model=MODEL, store=tmp_path / "store", engine=Engine(shard="1/2")
        )
    with pytest.raises(UndersongError, match="No axis uses the model organism:af3; add one"):
        screen(*files, out, axes={"words": "tfidf"}, model=MODEL)
    with pytest.raises(UndersongError, match="No axis prompts a model; leave --system-prompt out"):
        screen(*files, out, axes={"words": "tfidf"}, system_prompt="x")
    with pytest.raises(UndersongError, match="no decoder layer 99"):
        screen(*files, out, axes={"states": "decoder:99"}, model=MODEL)


def test_the_program_of_the_guide_runs_on_fewer_samples() -> None:
    import re

    (program,) = re.findall(r"```python\n(.*?)```", page("screen"), re.S)
    assert program.count("pool[:40], reference") == 1
    space: dict[str, dict[str, np.ndarray]] = {}
    exec(program.replace("pool[:40], reference", "pool[::160], reference[::16]"), space)
    assert all(len(scores) == 5 and np.isfinite(scores).all() for scores in space["scores"].values())
    assert set(space["scores"]) == {"refusal", "decoder", "influence:64", "gradient-matching:64"}
