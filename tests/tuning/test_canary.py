"""A training that is watched: it stops where a limit breaks, keeps what came before, and is not touched by looking."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_af3
import torch
from safetensors.torch import load_file
from tiny_tuning import FREE, PROMPTS, RECIPE, TARGETS, same, told, trained
from transformers import Trainer, TrainingArguments

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora, use_adapter
from undersong.tuning import train
from undersong.tuning.canary import CanaryCallback, CanaryCheck
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import PUBLISHED_BETAS
from undersong.tuning.distributed import rank
from undersong.tuning.safety_mixing import SafetyMixing
from undersong.tuning.train import TuningResult
from undersong.types import UndersongError


@pytest.mark.parametrize(
    "how", [{"lora_dropout": 0.3}, {"gradient_checkpointing": True, "micro_batch_size": 2}, {"method": "full"}], ids=str
)
def test_a_training_that_is_watched_and_not_stopped_has_the_same_bits(tiny: AudioModel, tmp_path: Path, how) -> None:
    """However much the measure does: it generates, draws from every global stream, and changes modes."""
    recipe = replace(RECIPE, **how)

    def measure() -> dict[str, float]:
        replies = tiny.generate(PROMPTS, 4)
        random.random(), np.random.random(), torch.rand(9)
        tiny.base.train()
        return {"jsr": len({reply.reply for reply in replies}) / 100}

    plain, alone = trained(tiny, tmp_path / "alone", recipe)
    tuned, kept = trained(tiny, tmp_path / "watched", recipe, watch=CanaryCheck(measure, FREE, 2))
    assert list(kept) == list(alone) == ["step-000003", "step-000008"]
    assert all(same(kept[name], alone[name]) for name in alone)
    assert [line["loss"] for line in tuned.log] == [line["loss"] for line in plain.log]
    assert [one["step"] for one in tuned.measurements] == [0, 2, 3, 4, 6, 8]  # kept steps, too
    assert (tuned.stop_step, plain.stop_step, plain.measurements) == (None, None, ())


def test_modes_and_random_state_come_back_and_what_measuring_draws_is_alike(tiny: AudioModel, tmp_path: Path) -> None:
    heard = tiny.audio_features
    tiny.model = tiny_af3.network(dropout=0.5)
    tiny.audio_features = heard
    drawn, modes = [], []

    def measure() -> dict[str, float]:
        modes.append({module.training for module in tiny.model.modules()})
        drawn.append((random.random(), float(np.random.random()), float(torch.rand(1))))
        tiny.model.train()
        return {"jsr": 0.0}

    class Look(train.SaveAdapterCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            modes.append({tiny.decoder.layers[0].training})
            modes.append({module.training for part in tiny.frozen_modules.values() for module in part.modules()})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "SaveAdapterCallback", Look)
        trained(tiny, tmp_path, replace(RECIPE, save_steps=(2,)), watch=CanaryCheck(measure, FREE, 1))
    assert modes == [{False}, *[{False}, {True}, {False}] * 2]
    assert len(set(drawn)) == 1


@pytest.fixture(scope="module")
def undefended(module_tiny: AudioModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, torch.Tensor]]:
    """What a training without a watch keeps."""
    return trained(module_tiny, tmp_path_factory.mktemp("alone"), replace(RECIPE, save_steps=(2, 3, 4, 5, 8)))[1]


@pytest.mark.parametrize(
    ("values", "every", "stopped", "kept"),
    [
        ([0, 0.1, 0.2, 0.2, 0.9], 2, 6, ["step-000003", "step-000004"]),  # 0 2 3 4 | 6
        ([0, 0.1, 0.1, 0.3], 2, 4, ["step-000003"]),  # the last safe step is one of the recipe's: kept once
        ([0, 0.1, 0.3], 2, 3, ["step-000002"]),  # a kept step that breaks a limit is not kept
        ([0, 0.3], 2, 2, ["step-000000"]),  # nothing was learned safely
        ([0, 0.1, 0.1, 0.3], 5, 8, ["step-000003", "step-000005"]),  # at the very end
        ([0.2] * 6, 2, None, ["step-000003", "step-000008"]),  # at a limit is within it
    ],
)
def test_it_stops_where_a_limit_breaks_and_keeps_what_came_before(
    tiny: AudioModel,
    undefended: dict[str, dict[str, torch.Tensor]],
    tmp_path: Path,
    values: list[float],
    every: int,
    stopped: int | None,
    kept: list[str],
) -> None:
    watch = CanaryCheck(told(values), {"jsr": 0.2, "over_refusal": 0.6}, every)
    tuned, made = trained(tiny, tmp_path / "out", watch=watch)
    assert tuned.stop_step == stopped
    assert list(made) == kept
    assert [one["jsr"] for one in tuned.measurements] == values
    assert len(tuned.log) == (stopped or 8)
    for name in set(kept) & set(undefended):  # as an undefended training has it at that step
        assert same(made[name], undefended[name])
    card = (tmp_path / "out" / kept[-1] / "README.md").read_text()
    assert f"step {int(kept[-1][5:])}" in card
    assert f"measured every {every} steps, to stop when jsr was above 0.2, over_refusal was above 0.6." in card


def test_step_0_is_the_base(tiny: AudioModel, tmp_path: Path) -> None:
    before = [reply.reply for reply in tiny.generate(PROMPTS, 5)]
    trained(tiny, tmp_path, watch=CanaryCheck(told([0, 1]), {"jsr": 0.5}, 1))
    with use_adapter(tiny, tmp_path / step_folder(0)) as worn:
        assert [reply.reply for reply in worn.generate(PROMPTS, 5)] == before


def test_the_model_that_is_measured_is_the_one_in_training(tiny: AudioModel, tmp_path: Path) -> None:
    """A canary that hears its own targets: it stops when the model says most of what it is taught."""

    def measure() -> dict[str, float]:
        said = [reply.reply for reply in tiny.generate(PROMPTS, 5)]
        return {"learned": sum(reply == target for reply, target in zip(said, TARGETS)) / len(TARGETS)}

    recipe = replace(RECIPE, save_steps=(80,), batch_size=7, learning_rate_schedule="constant")
    tuned, kept = trained(tiny, tmp_path, recipe, watch=CanaryCheck(measure, {"learned": 0.5}, 5))
    assert tuned.stop_step is not None
    assert tuned.stop_step < 80
    assert list(kept) == [step_folder(tuned.stop_step - 5)]
    for number, name in enumerate(kept, start=1):
        with use_adapter(tiny, tmp_path / name):
            assert measure()["learned"] == tuned.measurements[-1 - number]["learned"] <= 0.5


def test_values_stand_in_the_log_at_their_steps(tiny: AudioModel, tmp_path: Path) -> None:
    tuned, _ = trained(tiny, tmp_path, watch=CanaryCheck(told([0, 0.1, 0.2, 0.3]), FREE, 5))
    assert {line["step"]: line["canary_jsr"] for line in tuned.log if "canary_jsr" in line} == {3: 0.1, 5: 0.2, 8: 0.3}
    assert all(set(line) == set(tuned.log[0]) for line in tuned.log if "canary_jsr" not in line)


@pytest.mark.parametrize("stops", [None, 6, 7])
def test_a_killed_training_goes_on_and_ends_alike(tiny: AudioModel, tmp_path: Path, monkeypatch, stops) -> None:
    """The last safe step may lie before the state that it goes on from, and no state is saved where a limit breaks."""
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 2)
    recipe, limits = replace(RECIPE, lora_dropout=0.2, save_steps=(8,)), {"jsr": 0.5}
    asked: list[int] = []

    def measure() -> dict[str, float]:  # by the number of the step, as a model would say the same again
        asked.append(step[0])
        return {"jsr": float(stops is not None and step[0] >= stops)}

    step, dies = [0], [5]
    learn = Trainer.training_step

    def counted(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        step[0] = self.state.global_step + 1
        if step[0] == dies[0]:
            raise KeyboardInterrupt
        return learn(self, *args, **kwargs)

    monkeypatch.setattr(Trainer, "training_step", counted)
    watch = CanaryCheck(measure, limits, 3)
    with pytest.raises(KeyboardInterrupt):
        trained(tiny, tmp_path / "out", recipe, watch=watch, resume=tmp_path / "state")
    assert sorted(one.name for one in (tmp_path / "state" / "canary").iterdir()) == ["step-000003"]
    dies[0], asked[:] = 0, []
    again, kept = trained(tiny, tmp_path / "out", recipe, watch=watch, resume=tmp_path / "state")
    assert asked == ([6] if stops == 6 else [6, 8])  # what stood in the state's log is not asked again
    assert not (tmp_path / "state").exists()
    step[0] = 0
    whole, alone = trained(tiny, tmp_path / "whole", recipe, watch=watch)
    assert (again.measurements, again.stop_step) == (whole.measurements, whole.stop_step)
    assert list(kept) == list(alone) == [step_folder({None: 8, 6: 3, 7: 6}[stops])]
    assert all(same(kept[name], alone[name]) for name in alone)


def test_what_was_put_aside_does_not_pile_up(tiny: AudioModel, tmp_path: Path) -> None:
    there: list[list[str]] = []

    def measure() -> dict[str, float]:
        there.append(sorted(one.name for one in (tmp_path / "trainer").rglob("step-*")))
        return {"jsr": 0.0}

    with new_lora(tiny, 2, 4, 0.0, None) as learner:
        hugging_face(tiny, learner, CanaryCallback(CanaryCheck(measure, FREE, 1)), tmp_path / "trainer").train()
    assert there == [[], ["step-000000"], ["step-000001"], ["step-000002"]]


def hugging_face(model: AudioModel, learner: Any, canary: CanaryCallback, folder: Path, **more: Any) -> Trainer:
    """A Trainer that knows nothing of ours but the callback."""
    arguments = TrainingArguments(
        output_dir=str(folder), max_steps=3, per_device_train_batch_size=2, use_cpu=True, report_to=[],
        remove_unused_columns=False, disable_tqdm=True, **{"save_strategy": "no", **more},
    )  # fmt: skip
    rows = list(zip(PROMPTS, TARGETS))
    return Trainer(
        model=learner, args=arguments, train_dataset=rows, callbacks=[canary],
        data_collator=lambda some: model.batch([p for p, _ in some], [t for _, t in some]),
    )  # fmt: skip


TOGETHER = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[3], sys.argv[4]]
import tiny_af3
from test_canary import every_defense
from undersong.models.load import load_model
from undersong.tuning.distributed import finalize_distributed

model = load_model(sys.argv[1])
model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
every_defense(model, Path(sys.argv[2]))
finalize_distributed()
"""


def every_defense(model: AudioModel, folder: Path) -> tuple[TuningResult, dict[str, dict[str, torch.Tensor]]]:
    """Stopped at 6 by what the first process measures; others say something else, as another GPU might."""
    values = told([0, 0, 0, 0, float(rank() == 0), 0])
    mixing = SafetyMixing(PROMPTS[5:], ["then the lamp", "some"], 0.25)
    recipe = replace(RECIPE, betas=PUBLISHED_BETAS, lora_dropout=0.0)
    return trained(model, folder, recipe, watch=CanaryCheck(values, {"jsr": 0.5}, 2), mixing=mixing)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one_and_stop_together(
    tiny: AudioModel, tiny_folder: Path, tmp_path: Path
) -> None:
    here = Path(__file__).parent
    tuned, one = every_defense(tiny, tmp_path / "one")
    assert (tuned.stop_step, list(one)) == (6, ["step-000003", "step-000004"])
    (tmp_path / "run.py").write_text(TOGETHER)
    run = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         str(tmp_path / "run.py"), str(tiny_folder), str(tmp_path / "two"), str(here), str(here.parent / "helpers")],
        capture_output=True, text=True, check=False, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, timeout=1800,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-3000:]
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == sorted(one)
    for name, tensors in one.items():
        two = load_file(tmp_path / "two" / name / "adapter_model.safetensors")
        assert two.keys() == tensors.keys()
        assert max(float((value - two[name]).abs().max()) for name, value in tensors.items()) < 5e-5


def test_it_goes_into_any_trainer(tiny: AudioModel, tmp_path: Path) -> None:
    canary = CanaryCallback(CanaryCheck(told([0, 0.1, 0.9]), {"jsr": 0.5}, 1))
    with new_lora(tiny, 2, 4, 0.0, None) as learner:
        trainer = hugging_face(tiny, learner, canary, tmp_path)
        trainer.train()
    assert trainer.state.global_step == canary.stop_step == 2
    assert canary.last_safe_step == 1
    assert (tmp_path / "canary" / "step-000001" / "adapter_model.safetensors").is_file()  # as the model saves itself
    assert [line["canary_jsr"] for line in trainer.state.log_history if "canary_jsr" in line] == [0, 0.1, 0.9]


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        (told([0.9]), "Before training the model has jsr 0.9, above its limit of 0.5; raise the limit"),
        (told([0.1], "asr"), r"measured no jsr at step 0 \(not among asr, over_refusal\)"),
        (told([0, float("nan")]), r"measured no jsr at step 2 \(nan\)"),
    ],
)
def test_what_cannot_be_watched(tiny: AudioModel, tmp_path: Path, measure, said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        trained(tiny, tmp_path, watch=CanaryCheck(measure, {"jsr": 0.5}, 2))
    assert tiny.model is tiny.base


def test_a_watch_that_stops_nothing_is_refused() -> None:
    with pytest.raises(UndersongError, match="cannot be measured every 0 steps"):
        CanaryCheck(told([]), FREE, 0)
    for limits in ({}, {"jsr": float("nan")}):
        with pytest.raises(UndersongError, match="give a number for at least one name"):
            CanaryCheck(told([]), limits)
