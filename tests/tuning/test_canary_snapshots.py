"""The snapshots that a canary goes back to: after a kill, and when their bytes are not those that were written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_tuning import FREE, PROMPTS, RECIPE, TARGETS, same, told, trained

from undersong.models.audio_lm import AudioModel
from undersong.tuning import train
from undersong.tuning.canary import CanaryCheck
from undersong.tuning.checkpoints import last_complete_checkpoint, write_checkpoint_manifest
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import UndersongError


def stopped_by_kill(model: AudioModel, state: Path, monkeypatch: pytest.MonkeyPatch) -> LoraRecipe:
    """A training that is killed after it stopped at step 4 and before it keeps step 2; its recipe."""
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 2)

    def killed(name: str, write: Callable[[Path], None]) -> None:
        raise KeyboardInterrupt

    recipe, watch = replace(RECIPE, save_steps=(8,)), CanaryCheck(told([0, 0, 1]), FREE | {"jsr": 0.5}, 2)
    with pytest.raises(KeyboardInterrupt):
        finetune_decoder(model, PROMPTS, TARGETS, recipe, 0, killed, state, watch=watch)
    return recipe


def test_no_state_is_left_where_a_limit_breaks(tiny: AudioModel, tmp_path: Path, monkeypatch) -> None:
    recipe = stopped_by_kill(tiny, tmp_path / "state", monkeypatch)
    assert sorted(one.name for one in (tmp_path / "state").glob("checkpoint-*")) == ["checkpoint-2"]
    tuned, kept = trained(
        tiny, tmp_path / "out", recipe, watch=CanaryCheck(told([1]), {"jsr": 0.5}, 2), resume=tmp_path / "state"
    )
    assert (tuned.stop_step, list(kept)) == (4, ["step-000002"])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def test_a_damaged_snapshot_is_not_gone_back_to(
    tiny: AudioModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bit of it was flipped after a kill: the training begins again, and ends with the bits of an undisturbed one."""
    state = tmp_path / "state"
    recipe = stopped_by_kill(tiny, state, monkeypatch)
    flip(state / "canary" / "step-000002" / "adapter_model.safetensors")
    again = CanaryCheck(told([0, 0, 1]), {"jsr": 0.5}, 2)
    tuned, kept = trained(tiny, tmp_path / "out", recipe, watch=again, resume=state)
    assert caplog.messages == [
        f"{state / 'canary' / 'step-000002'} is damaged (adapter_model.safetensors is not what was written); "
        "the training continues from step 0."
    ]
    _, alone = trained(tiny, tmp_path / "alone", recipe, watch=CanaryCheck(told([0, 0, 1]), {"jsr": 0.5}, 2))
    assert (tuned.stop_step, list(kept)) == (4, ["step-000002"])
    assert same(kept["step-000002"], alone["step-000002"])
    assert not (tmp_path / "out" / "step-000002" / "files.json").exists()


def test_half_of_an_older_checkpoint_costs_only_that(tmp_path: Path) -> None:
    """As a kill leaves it in the middle of the Trainer's own removal; the snapshots are those of the newest."""
    for name in ("checkpoint-2", "checkpoint-4", "canary/step-000004"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "weights").write_text(name)
        write_checkpoint_manifest(tmp_path / name)
    (tmp_path / "checkpoint-2" / "weights").unlink()
    assert last_complete_checkpoint(tmp_path) == str(tmp_path / "checkpoint-4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["canary", "checkpoint-4"]
    flip(tmp_path / "checkpoint-4" / "weights")
    assert last_complete_checkpoint(tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flip, "adapter_model.safetensors is not what was written"),
        (Path.unlink, "adapter_model.safetensors is missing"),
    ],
)
def test_a_snapshot_damaged_during_the_training_is_refused(
    tiny: AudioModel, tmp_path: Path, harm: Callable[[Path], None], said: str
) -> None:
    """And the same command, which the sentence asks for, does not end there again."""
    state, recipe = tmp_path / "state", replace(RECIPE, save_steps=(8,))
    values = iter([0.0, 0.0, 1.0])

    def measure() -> dict[str, float]:
        value = next(values)
        if value:
            harm(state / "canary" / "step-000002" / "adapter_model.safetensors")
        return {"jsr": value}

    with pytest.raises(UndersongError, match=rf"^The canary's snapshot \S+step-000002 is damaged \({said}\), so .*\.$"):
        trained(tiny, tmp_path / "out", recipe, watch=CanaryCheck(measure, {"jsr": 0.5}, 2), resume=state)
    assert not state.exists()
    assert not (tmp_path / "out").exists()
    watch = CanaryCheck(told([0, 0, 1]), {"jsr": 0.5}, 2)
    assert list(trained(tiny, tmp_path / "out", recipe, watch=watch, resume=state)[1]) == ["step-000002"]
