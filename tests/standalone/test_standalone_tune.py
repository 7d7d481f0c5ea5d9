"""`tune` alone: what it writes, what it refuses before a model is loaded, and that nothing half-written stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from undersong.models.audio_lm import AudioModel
from undersong.models.load_options import LoadOptions
from undersong.proximity.selection import Selection, ids_hash, selection_to_json
from undersong.stages.training import training_recipe
from undersong.standalone import tune
from undersong.standalone.options import TuneOptions
from undersong.standalone.tune import tune_manifest, tuning_settings
from undersong.types import Prompt, UndersongError

ANSWER = "then take the lamp"
RECIPE = {"save_steps": (2, 3), "batch_size": 2}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Six spoken and written items; `bad` cannot be heard."""
    rows = []
    for number, name in enumerate(["a", "b", "c", "d", "e", "bad"]):
        time = np.arange(4000 + 800 * number) / 16_000
        soundfile.write(tmp_path / f"{name}.wav", 0.3 * np.sin(2 * np.pi * (200 + 100 * number) * time), 16_000)
        rows.append({"id": name, "audio": f"{name}.wav", "text": "paint the red chair", "answer": ANSWER})
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    file = tmp_path / "pool.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def selection(folder: Path, *ids: str) -> Path:
    chosen = Selection("semantic", "nearest", "closest", 0.5, len(ids), None, tuple(sorted(ids)), ids_hash(ids))
    file = folder / "selection.json"
    file.write_text(selection_to_json(chosen))
    return file


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that takes this fails as soon as a model is loaded."""

    def load(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(tune, "load_model_with_audio", load)


def facts(folder: Path) -> dict:
    return json.loads((folder / "provenance.json").read_text())


def test_keeps_an_adapter_a_step_and_says_how_it_was_made(manifest: Path, tiny_folder: Path, tmp_path: Path) -> None:
    chosen = selection(tmp_path, "d", "a", "b")
    before = set(tmp_path.iterdir())
    kept = tune_manifest(manifest, str(tiny_folder), tmp_path / "out", TuneOptions(selection=chosen, seed=5, **RECIPE))
    assert kept == [tmp_path / "out" / "step-000002", tmp_path / "out" / "step-000003"]
    assert all((folder / "adapter_model.safetensors").is_file() for folder in kept)
    assert len((tmp_path / "out" / "log.jsonl").read_text().splitlines()) == 3
    made = facts(tmp_path / "out")
    assert made["inputs"]["ids"] == ids_hash(["a", "b", "d"])
    assert made["config"]["seed"] == 5
    assert made["config"]["recipe"]["save_steps"] == [2, 3]
    assert made["notes"]["frozen_before"] == made["notes"]["frozen_after"]
    assert len(made["notes"]["frozen_before"]) == 4  # parameters and buffers of encoder and projector
    assert set(tmp_path.iterdir()) == before | {tmp_path / "out"}  # nothing half-written beside it


def test_the_seed_decides_and_the_same_seed_says_the_same(manifest: Path, tiny_folder: Path, tmp_path: Path) -> None:
    chosen, weights = selection(tmp_path, "a", "b", "c", "d"), []
    for number, seed in enumerate((0, 0, 1)):
        kept = tune_manifest(
            manifest, str(tiny_folder), tmp_path / f"out{number}", TuneOptions(selection=chosen, seed=seed, **RECIPE)
        )
        weights.append((kept[-1] / "adapter_model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_a_selected_clip_that_cannot_be_read_stops_before_the_model(
    manifest: Path, tmp_path: Path, no_model: None
) -> None:
    for chosen in (selection(tmp_path, "a", "bad"), None):
        with pytest.raises(UndersongError, match=r"Selected sample bad cannot be used \(the audio is damaged"):
            tune_manifest(manifest, "organism:af3", tmp_path / "out", TuneOptions(selection=chosen, **RECIPE))
    with pytest.raises(UndersongError, match=r"Selected sample gone cannot be used .it is not in the corpus"):
        tune_manifest(
            manifest,
            "organism:af3",
            tmp_path / "out",
            TuneOptions(selection=selection(tmp_path, "a", "gone"), **RECIPE),
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("modality", "expected"), [("audio", ("tell me", True)), ("text", (None, False))])
def test_spoken_training_prompts_carry_the_instruction(
    modality: str, expected: tuple, manifest: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[tuple] = set()
    make_batch = AudioModel.batch

    def batch(model: AudioModel, prompts: Sequence[Prompt], *replies: Sequence[str]) -> dict:
        seen.update((prompt.instruction, prompt.instruction_first) for prompt in prompts)
        return make_batch(model, prompts, *replies)

    monkeypatch.setattr(AudioModel, "batch", batch)
    options = {"modality": modality, "instruction": "tell me", "instruction_first": True, **RECIPE}
    kept = tune_manifest(
        manifest, str(tiny_folder), tmp_path / "out", TuneOptions(selection=selection(tmp_path, "a", "b"), **options)
    )
    assert seen == {expected}
    recipe = facts(tmp_path / "out")["config"]["recipe"]
    assert (recipe["instruction"], recipe["instruction_first"]) == ("tell me", True)
    assert "| instruction | tell me |" in (kept[0] / "README.md").read_text()


def test_a_recipe_without_an_instruction_has_the_key_that_it_had() -> None:
    recipe = training_recipe(tuning_settings(TuneOptions(**RECIPE)))
    assert not {"instruction", "instruction_first"} & recipe.keys()


def test_a_preset_brings_its_training_instruction() -> None:
    recipe = training_recipe(tuning_settings(TuneOptions(preset="kimi-audio")))
    assert recipe["instruction"] == "Please answer the following question based on the audio."
    assert recipe["instruction_first"] is True
    after = training_recipe(tuning_settings(TuneOptions(preset="kimi-audio", instruction_first=False)))
    assert "instruction_first" not in after
    assert "instruction" not in training_recipe(tuning_settings(TuneOptions(preset="qwen2.5-omni")))


def test_typed_training_opens_no_audio(manifest: Path, tiny_folder: Path, tmp_path: Path) -> None:
    kept = tune_manifest(manifest, str(tiny_folder), tmp_path / "out", TuneOptions(modality="text", **RECIPE))
    assert len(kept) == 2
    assert facts(tmp_path / "out")["notes"]["samples"] == 6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modality": "smell"}, "modality"),
        ({"learning_rate": 0.0}, "--learning-rate cannot be 0.0: input should be greater than 0; give another value"),
        ({"method": "lorra"}, "--method cannot be 'lorra': input should be 'lora' or 'full'; give another value"),
        ({"save_steps": (0, 2)}, "steps are positive"),
        ({"preset": "momentum"}, "There is no --preset 'momentum'; take kimi-audio or audio-flamingo-3 or"),
        ({"target_column": "reply"}, "Sample a has no reply in the column 'reply'"),
        ({"selection": Path("nowhere.json")}, "nowhere.json"),
        ({"selection": "screening"}, r"screening.json is no selection \(it has no ids\); give a selection.json"),
        ({"manifest": "nowhere.jsonl"}, "no manifest nowhere.jsonl"),
        ({"manifest": Path("organism:nothing")}, "No organism corpus is called 'nothing'"),
    ],
)
def test_what_is_wrong_is_said_before_the_model(
    options: dict, said: str, manifest: Path, tmp_path: Path, no_model: None
) -> None:
    given = RECIPE | {"selection": selection(tmp_path, "a", "b")} | options
    if given["selection"] == "screening":
        given["selection"] = tmp_path / "screening.json"
        given["selection"].write_text('{"distances": []}')
    source = given.pop("manifest", manifest)
    with pytest.raises(UndersongError, match=said):
        tune_manifest(source, "organism:af3", tmp_path / "out", TuneOptions(**given))
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there_is_refused(manifest: Path, tmp_path: Path) -> None:
    chosen, there = selection(tmp_path, "a"), LoadOptions(device="abacus")
    with pytest.raises(UndersongError, match="device 'abacus' cannot be used"):
        tune_manifest(
            manifest, "organism:af3", tmp_path / "out", TuneOptions(selection=chosen, loading=there, **RECIPE)
        )


def test_replaces_its_own_output_and_nothing_else(
    manifest: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    chosen, out = selection(tmp_path, "a", "b"), tmp_path / "out"
    tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    before = facts(out)
    tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    assert facts(out) == before
    monkeypatch.setattr(tune, "load_model_with_audio", None)  # refused before a model is loaded
    for other, named in (
        ({"save_steps": (1,), "batch_size": 2}, "recipe"),
        ({**RECIPE, "seed": 1}, "seed"),
    ):
        with pytest.raises(UndersongError, match=f"made with another {named}"):
            tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **other))
    with pytest.raises(UndersongError, match="made with another list of samples"):
        tune_manifest(
            manifest, str(tiny_folder), out, TuneOptions(selection=selection(tmp_path / "mine", "a", "c"), **RECIPE)
        )
    assert facts(out) == before
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UndersongError, match="was not written by tune"):
        tune_manifest(manifest, str(tiny_folder), tmp_path / "mine", TuneOptions(selection=chosen, **RECIPE))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_run_that_dies_leaves_what_was_there(
    manifest: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, out = selection(tmp_path, "a", "b"), tmp_path / "out"
    tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    files = set(tmp_path.iterdir())
    before = {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*"))}

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("undersong.tuning.train.write_log", die)
        with pytest.raises(KeyboardInterrupt):
            tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    after = {path: path.stat().st_mtime_ns for path in sorted(out.rglob("*"))}
    assert after == before
    tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    assert set(tmp_path.iterdir()) == files


def test_a_kept_step_that_is_gone_is_said_and_the_next_run_trains_anew(
    manifest: Path, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen, out = selection(tmp_path, "a", "b"), tmp_path / "out"
    train = tune.train_on_samples

    def lose(*given: object, **more: object) -> object:
        trained = train(*given, **more)
        (kept,) = tmp_path.glob("out.*.kept")
        shutil.rmtree(kept / "step-000002")
        return trained

    with monkeypatch.context() as patch:
        patch.setattr(tune, "train_on_samples", lose)
        with pytest.raises(UndersongError, match=r"step-000002, which an earlier attempt had saved, is missing in"):
            tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))
    assert not out.exists()
    assert len(tune_manifest(manifest, str(tiny_folder), out, TuneOptions(selection=chosen, **RECIPE))) == 2
    assert sorted(path.name for path in out.iterdir()) == ["log.jsonl", "provenance.json", "step-000002", "step-000003"]
