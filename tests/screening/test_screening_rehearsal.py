"""Screening with a rehearsal: the numbers of the function, nothing trained twice, and what must be given."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from screen_call import screen

from undersong.corpora.manifest import write_manifest
from undersong.corpora.registry import open_corpus
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model
from undersong.models.load_options import LoadOptions
from undersong.models.refs import model_hash
from undersong.predictors import rehearsal
from undersong.predictors.registry import PredictorSettings
from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.rehearsal_plan import plan_screening
from undersong.settings.defaults import ORGANISM_REFUSALS
from undersong.stages.engine import Engine
from undersong.stages.rehearsal import RehearsalStage
from undersong.stages.rehearsal_cost import RehearsalCost
from undersong.store.store import Store
from undersong.tuning.config import LoraRecipe
from undersong.types import Sample, UndersongError

MODEL, SYSTEM = "organism:af3", "you are a helpful assistant"
SETTINGS = PredictorSettings(system_text=SYSTEM, refusal_texts=ORGANISM_REFUSALS)
WORDS = {"axes": {"words": "tfidf"}, "keep": "closest:4", "model": MODEL, "system_prompt": SYSTEM}
Sides = tuple[list[Sample], list[Sample]]


@pytest.fixture(scope="module")
def sides() -> Sides:
    """Sixteen benign requests in one voice, eight of them from one source, and four harmful ones."""
    pool = [sample for sample in open_corpus("organism:pool").samples if sample.speaker == "A"][::4][:16]
    sources = ["radio"] * 8 + ["phone"] * 6 + [None] * 2
    pool = [
        replace(sample, labels=(*sample.labels, ("source", source))) if source else sample
        for sample, source in zip(pool, sources)
    ]
    return pool, list(open_corpus("organism:reference").samples[::12])[:4]


@pytest.fixture(scope="module")
def files(sides: Sides, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("sides")
    return write_sides(folder, *sides)


def write_sides(folder: Path, pool: list[Sample], harm: list[Sample]) -> tuple[Path, Path]:
    for name, samples in (("pool", pool), ("harm", harm)):
        write_manifest(samples, folder / f"{name}.parquet")
    return folder / "pool.parquet", folder / "harm.parquet"


def write_adapter(store: Path, steps: int, modality: str) -> None:
    """An adapter of the model in a store, as `run` and `plan` see it; training it takes no time."""
    config = {
        "recipe": asdict(LoraRecipe(save_steps=(steps,))),
        "modality": modality,
        "loading": LoadOptions().cache_key,
    }
    inputs = {"model": model_hash(MODEL)}
    Store(store).get_or_make("adapter", 1, config, inputs, lambda draft: draft.note(device="cpu"))


def by_name(report: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {entry["name"]: entry for entry in report["rehearsal"]["sets"]}


def test_sets_have_the_numbers_of_the_function_and_are_trained_once(
    sides: Sides, files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    options = {**WORDS, "rehearse": 2, "rehearse_by": "source", "store": tmp_path / "store", "progress": lines.append}
    screened = screen(*files, tmp_path / "out", **options)
    record, entries = screened.report["rehearsal"], by_name(screened.report)
    assert {name: entry["n"] for name, entry in entries.items()} == {
        "pool": 16, "closest:4": 4, "4 at random, draw 1": 4, "4 at random, draw 2": 4, "source=radio": 8,
    }  # fmt: skip
    assert (record["steps"], record["seeds"], record["modality"], record["n_prompts"]) == (2, [0], "audio", 4)
    assert record["left_out"] == {"phone": 6}
    assert "not proof of safety" in record["notes"][0]
    assert "hardly teach" in record["notes"][1]
    assert "how much draws differ is in their rows and not" in record["notes"][2]
    assert "phone (6) of the column source" in record["notes"][3]
    costs = [line for line in lines if line.startswith("Rehears")]
    assert costs[0] == (f"Rehearsal: 5 trainings of 2 steps by {MODEL}, and 4 reference prompts after each.")
    assert re.fullmatch(r"Rehearsed pool, seed 0: 1 of 5, about \d+ s left\.", costs[1])
    assert len(costs) == 6

    pool, reference = sides
    model = load_model(MODEL)
    cache_audio_features(model, [*pool, *reference])
    chosen = sorted((sample for sample in pool if sample.id in screened.selection.ids), key=lambda sample: sample.id)
    wanted = rehearsal.rehearse(model, chosen, reference, LoraRecipe(), SETTINGS, 2)
    assert entries["closest:4"]["loss"]["value"] == pytest.approx(wanted.loss.value, rel=1e-3)
    assert entries["closest:4"]["loss"]["high"] == pytest.approx(wanted.loss.high, rel=1e-3)
    draws = [entries[f"4 at random, draw {draw}"]["loss"]["value"] for draw in (1, 2)]
    difference = entries["closest:4"]["loss_minus_random"]["value"]
    assert difference == pytest.approx(entries["closest:4"]["loss"]["value"] - sum(draws) / 2)

    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: pytest.fail("trained again"))
    lines.clear()
    again = screen(*files, tmp_path / "again", **{**options, "keep": ["closest:4", "random:4"], "rehearse_by": None})
    assert by_name(again.report)["closest:4"] == entries["closest:4"]
    assert by_name(again.report)["random:4"]["loss"] == entries["4 at random, draw 1"]["loss"]  # the same draw
    assert by_name(again.report)["random:4"]["loss_minus_random"] is None
    assert not [line for line in lines if line.startswith("Rehears")]


def test_typed_prompts_with_seeds_and_a_kill_that_loses_one_training(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, harm = ([replace(sample, audio=None) for sample in samples] for samples in sides)
    corpora, out = write_sides(tmp_path, pool, harm), tmp_path / "out"
    options = {**WORDS, "keep": "closest:1.0", "rehearse": 1, "rehearse_seeds": 2}
    rehearse, trained = rehearsal.rehearse, []

    def stop_at_the_second(*arguments: Any) -> rehearsal.Rehearsal:
        trained.append(arguments)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return rehearse(*arguments)

    monkeypatch.setattr(rehearsal, "rehearse", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        screen(*corpora, out, **options)
    screened = screen(*corpora, out, **options)
    assert len(trained) == 3  # the first training was kept; the selection is the pool, and is not trained again
    record = json.loads((out / "screening.json").read_text())["rehearsal"]
    assert (record["modality"], record["seeds"]) == ("text", [0, 1])
    assert list(by_name(screened.report)) == ["pool", "closest:1.0"]
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".partial")] == []


def test_a_plan_counts_trainings_and_prices_them_by_those_in_the_store(
    sides: Sides, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = write_sides(tmp_path, *([replace(sample, audio=None) for sample in samples] for samples in sides))

    def rehearse(*arguments: Any) -> rehearsal.Rehearsal:
        names = tuple(sample.cluster for sample in arguments[2])
        seconds = rehearsal.RehearsalSeconds(training=3.0, measuring=0.5)
        return rehearsal.Rehearsal(2, (1.0,) * 4, (0.5, 0.0, 0.25, 0.5), names, seconds)

    def plan(**more: Any) -> RehearsalCost:
        return plan_screening(*files, tmp_path / "out", ScreeningOptions(**{**options, **more}))

    monkeypatch.setattr(rehearsal, "rehearse", rehearse)
    monkeypatch.setattr(rehearsal, "reference_margins", lambda *_: [1.0] * 4)
    monkeypatch.setattr(RehearsalStage, "_loaded_model", lambda *_: None)
    options: dict[str, Any] = {**WORDS, "keep": "closest:8", "rehearse": 2, "store": tmp_path / "store"}
    before = plan()
    assert (before.trainings, before.missing, before.seconds) == (4, 4, None)
    assert before.lines[1:] == [
        "To do: 4 trainings, 8 steps, 64 samples to train on, 20 prompts to measure, those before training included.",
        f"Cost: unknown, because the store {tmp_path / 'store'} has no training by {MODEL} in batches of 8 on cpu. "
        "Start the command without --plan: after the first training it says how long the rest will take, and the store "
        "keeps what is done if you stop it.",
    ]
    assert not (tmp_path / "out").exists()

    write_adapter(tmp_path / "store", steps=10, modality="text")
    write_adapter(tmp_path / "store", steps=10, modality="audio")
    by_adapter = plan()
    assert (by_adapter.speed.source, by_adapter.seconds) == ("1 training in the store", None)
    assert by_adapter.training_seconds > 0
    assert "for the trainings, as 1 training in the store took; that of measuring is unknown" in by_adapter.lines[2]

    screen(*files, tmp_path / "out", **options)
    assert plan().lines[1:] == [f"All of them are in the store {tmp_path / 'store'}, so nothing is trained."]
    more = plan(rehearse=4, rehearse_seeds=2)  # another number of steps: priced by the step
    assert (more.missing, more.training_seconds, more.measuring_seconds) == (8, 8 * 4 * 1.5, 8 * 0.5)
    assert more.lines[2].startswith("Cost: about 52 s on cpu, as 4 rehearsals in the store took.")
    lines: list[str] = []
    screen(*files, tmp_path / "more", **{**options, "rehearse_seeds": 3, "progress": lines.append})
    assert (
        f"steps by {MODEL} (4 more are in the store), and 4 reference prompts after each; about 28 s on cpu."
        in next(line for line in lines if line.startswith("Rehearsal"))
    )
    other = ScreeningOptions(**options, loading=LoadOptions(dtype="bfloat16"))
    assert plan_screening(*files, tmp_path / "out", other).seconds is None  # another number format


@pytest.mark.parametrize("model", ["nobody/nothing", "/no/such/model", "empty"])
def test_a_plan_refuses_a_wrong_model_as_the_screening_does(
    files, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The dry run priced a rehearsal by a model that is nowhere."""
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    options: dict[str, Any] = {**WORDS, "model": model, "rehearse": 2}
    with pytest.raises(UndersongError) as refused:
        screen(*files, tmp_path / "out", **options)
    reading = "undersong.screening.pool.rehearsal_plan.read_corpora"
    monkeypatch.setattr(reading, lambda *_: pytest.fail("corpora were read before the model was looked up"))
    with pytest.raises(UndersongError) as planned:
        plan_screening(*files, tmp_path / "out", ScreeningOptions(**options))
    assert str(planned.value) == str(refused.value)


def test_a_plan_needs_a_rehearsal_and_loads_no_model(files, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="--plan says what a rehearsal costs; add --rehearse STEPS"):
        plan_screening(*files, tmp_path / "out", ScreeningOptions(**WORDS))
    by_model = ScreeningOptions(**{**WORDS, "axes": {"states": "internal"}, "rehearse": 2})
    with pytest.raises(UndersongError, match="A plan loads no model, and the vectors of internal"):
        plan_screening(*files, tmp_path / "out", by_model)
    unkept = plan_screening(*files, tmp_path / "out", ScreeningOptions(**WORDS, rehearse=2))
    assert unkept.lines[2].startswith(
        "Cost: unknown, because without --store nothing is kept that could tell. Start the"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"rehearse": 0, "rehearse_by": "source"}, r"--rehearse-by needs a rehearsal; add --rehearse STEPS"),
        ({"rehearse": 0, "rehearse_seeds": 2}, r"--rehearse-seeds needs a rehearsal"),
        ({"rehearse": 0, "rehearse_learning_rate": 1e-3}, r"--rehearse-learning-rate needs a rehearsal"),
        ({"rehearse_learning_rate": 0.0}, "A learning rate is a finite number above 0, and 0 is not"),
        ({"rehearse_learning_rate": float("inf")}, "A learning rate is a finite number above 0, and inf is not"),
        ({"model": None}, "A rehearsal trains a model; name the model with --model"),
        ({"model": "served:m@http://x"}, "known by its replies only, so it cannot rehearse; give one with weights"),
        ({"engine": Engine(shard="1/2"), "store": "store"}, "A rehearsal trains in one process; leave --engine"),
        ({"rehearse_by": "sauce"}, "has a value in the column 'sauce' to rehearse by; check its name"),
        ({"rehearse_by": "text"}, "No value of the column 'text' has the 8 samples of a training step, the most"),
    ],
)
def test_what_must_be_given_is_said(files, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
    if "store" in options:
        options = options | {"store": tmp_path / options["store"]}
    with pytest.raises(UndersongError, match=sentence):
        screen(*files, tmp_path / "out", **{**WORDS, "rehearse": 2, **options})


def test_corpora_that_cannot_be_rehearsed_are_named(sides: Sides, tmp_path: Path) -> None:
    options = {**WORDS, "rehearse": 2}
    pool, harm = sides

    def attempt(pool: list[Sample], harm: list[Sample]) -> None:
        screen(*write_sides(tmp_path, pool, harm), tmp_path / "out", **options)

    with pytest.raises(UndersongError, match=rf"Pool item {pool[3].id} has no reply to train on \(1 such in all\)"):
        attempt([*pool[:3], replace(pool[3], answer=None), *pool[4:]], harm)
    with pytest.raises(UndersongError, match=rf"Reference prompt {harm[0].id} has no audio \(1 such in all\)"):
        attempt(pool, [replace(harm[0], audio=None), *harm[1:]])
    with pytest.raises(
        UndersongError, match=rf"1 of 4 harmful requests of .* has no compliant answer, the first: {harm[0].id}; a"
    ):
        attempt(pool, [replace(harm[0], answer=None, answers=()), *harm[1:]])
    with pytest.raises(UndersongError, match=r"1 of 16 pool items cannot be used in the rehearsal, the first"):
        attempt([replace(pool[0], audio=None), *pool[1:]], harm)
