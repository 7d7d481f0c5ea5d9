"""How a training is laid out in memory and time does not change what comes out of it."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_tuning import PROMPTS, RECIPE, TARGETS

from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.tuning import train
from undersong.tuning.checkpoints import last_complete_checkpoint, step_folder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import UndersongError


def trained(model: AudioModel, folder: Path, recipe: LoraRecipe, **more: Any) -> dict[str, torch.Tensor]:
    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(folder / name)

    finetune_decoder(model, PROMPTS, TARGETS, recipe, 0, keep, **more)
    return load_file(folder / step_folder(8) / "adapter_model.safetensors")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def test_a_step_is_of_the_whole_batch_however_it_is_cut(tiny: AudioModel, tmp_path: Path) -> None:
    """Replies differ in length, so a mean of means would be another loss."""
    whole = trained(tiny, tmp_path / "whole", RECIPE)
    for micro in (1, 2):
        assert apart(whole, trained(tiny, tmp_path / f"{micro}", replace(RECIPE, micro_batch_size=micro))) < 2e-5
    assert apart(whole, trained(tiny, tmp_path / "other", replace(RECIPE, batch_size=2))) > 1e-3


@pytest.mark.parametrize("organism", ["qwen", "kimi"])
def test_so_it_is_for_other_architectures(organism: str, tmp_path: Path) -> None:
    from undersong.corpora.registry import open_corpus
    from undersong.evaluation.prompts import make_prompts

    model = load_model(f"organism:{organism}")
    samples = [sample for sample in open_corpus("organism:pool").samples if sample.answer][:8]
    ask = {"set_name": "t", "harmful": False, "system": "s", "system_text": None, "modality": "text"}
    prompts, replies = make_prompts(samples, **ask), [sample.answer for sample in samples]
    replies[0] = f"{replies[0]} {replies[1]}"  # one is much longer
    made = []
    for micro in (None, 2):
        folder = tmp_path / f"{micro}"
        recipe = replace(RECIPE, save_steps=(3,), micro_batch_size=micro)
        finetune_decoder(model, prompts, replies, recipe, 0, lambda name, write, folder=folder: write(folder / name))
        made.append(load_file(folder / step_folder(3) / "adapter_model.safetensors"))
    assert apart(*made) < 2e-5


def test_activations_may_be_computed_again(tiny: AudioModel, tmp_path: Path) -> None:
    plain, again = (
        trained(tiny, tmp_path / f"{way}", replace(RECIPE, gradient_checkpointing=way, lora_dropout=0.1))
        for way in (False, True)
    )
    assert apart(plain, again) < 1e-6
    assert not tiny.base.is_gradient_checkpointing  # nothing of it stays on the shared base


def test_a_batch_that_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UndersongError, match="batch of 4 cannot be taken 3 at a time"):
        replace(RECIPE, micro_batch_size=3)


KILLED = """
import os, sys
from pathlib import Path
sys.path[:0] = [sys.argv[3], sys.argv[4]]
import tiny_af3
from test_checkpoints import RECIPE, trained
from dataclasses import replace
from undersong.models.load import load_model
from undersong.tuning import checkpoints, train

train.CHECKPOINT_STEPS = 2
model = load_model(sys.argv[1])
model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
dies = int(sys.argv[5])
begin = checkpoints.SaveAdapterCallback.on_step_end

def counted(self, args, state, control, **more):
    if state.global_step == dies:
        os._exit(137)
    return begin(self, args, state, control, **more)

checkpoints.SaveAdapterCallback.on_step_end = counted
out = Path(sys.argv[2])
trained(model, out, replace(RECIPE, lora_dropout=0.2), resume=out / "state")
"""


def kill(tiny_folder: Path, out: Path, step: int) -> list[int]:
    """A training that dies at a step; the steps of the checkpoints that it leaves."""
    here = Path(__file__).parent
    arguments = [str(tiny_folder), str(out), str(here), str(here.parent / "helpers"), str(step)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 137, done.stderr[-2000:]
    return sorted(int(one.name.partition("-")[2]) for one in (out / "state").glob("checkpoint-*"))


def test_a_killed_training_goes_on_and_ends_with_the_same_bits(
    tiny: AudioModel, tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, a schedule and a moment of Adam in the middle; killed twice, once before the first state."""
    undisturbed = trained(tiny, tmp_path / "plain", replace(RECIPE, lora_dropout=0.2))
    out = tmp_path / "out"
    for step, left in ((1, []), (7, [4, 6])):
        assert kill(tiny_folder, out, step) == left
    torn = out / "state" / "checkpoint-7"  # killed while it was written: there is no mark
    torn.mkdir()
    (torn / "adapter_model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 2)
    resumed = trained(tiny, out, replace(RECIPE, lora_dropout=0.2), resume=out / "state")
    assert apart(undisturbed, resumed) == 0.0
    first = load_file(tmp_path / "plain" / step_folder(3) / "adapter_model.safetensors")
    assert apart(first, load_file(out / step_folder(3) / "adapter_model.safetensors")) == 0.0
    assert not (out / "state").exists()


@pytest.fixture(scope="module")
def killed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training leaves that was killed after its sixth step."""
    folder = tmp_path_factory.mktemp("killed") / "out"
    assert kill(tiny_folder, folder, 7) == [4, 6]
    return folder


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


def damage(file: Path, how: str) -> None:
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes({"truncated": file.read_bytes()[:-9], "empty": b"", "pickle": pickle.dumps(Evil())}[how])


@pytest.mark.parametrize("how", ["truncated", "empty", "gone", "pickle"])
@pytest.mark.parametrize(
    "name", ["optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "adapter_model.safetensors"]
)
def test_a_damaged_checkpoint_is_not_continued_from(
    name: str, how: str, killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    shutil.copytree(killed / "state", state)
    damage(state / "checkpoint-6" / name, how)
    assert last_complete_checkpoint(state) == str(state / "checkpoint-4")
    fault = "is missing" if how == "gone" else "is not what was written"
    assert caplog.messages == [
        f"{state / 'checkpoint-6'} is damaged ({name} {fault}); the training continues from checkpoint-4."
    ]
    damage(state / "checkpoint-4" / name, how)
    assert last_complete_checkpoint(state) is None
    assert caplog.messages[1:] == [
        f"{state / 'checkpoint-4'} is damaged ({name} {fault}); the training continues from step 0."
    ]
    assert not list(state.glob("checkpoint-*"))


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{", b"\xff"])
def test_a_checkpoint_without_a_readable_manifest_is_damaged(
    content: bytes, killed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = tmp_path / "state"
    shutil.copytree(killed / "state", state)
    (state / "checkpoint-6" / "files.json").write_bytes(content)
    assert last_complete_checkpoint(state) == str(state / "checkpoint-4")
    assert "files.json cannot be read" in caplog.text


@pytest.mark.parametrize("lost", [("checkpoint-6",), ("checkpoint-4", "checkpoint-6")])
def test_a_training_without_its_optimizer_ends_with_the_same_bits(
    lost: tuple[str, ...], killed: Path, tiny: AudioModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went on with an optimizer that had forgotten its moments, and with other bits."""
    undisturbed = trained(tiny, tmp_path / "plain", replace(RECIPE, lora_dropout=0.2))
    out = tmp_path / "out"
    shutil.copytree(killed, out)
    for name in lost:
        (out / "state" / name / "optimizer.pt").unlink()
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 2)
    assert apart(undisturbed, trained(tiny, out, replace(RECIPE, lora_dropout=0.2), resume=out / "state")) == 0.0
    assert not (out / "state").exists()
