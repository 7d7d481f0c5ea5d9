"""Tuning: the adapter alone learns, the encoder provably does not, and a seed says everything."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_af3
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from tiny_af3 import spoken, typed

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import use_adapter
from undersong.models.weights import module_hashes
from undersong.tuning.canary import CanaryCheck
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.model_card import model_card
from undersong.tuning.train import TuningResult, finetune_decoder, write_log
from undersong.types import MAX_SEED, UndersongError

PROMPTS = [*(spoken(i) for i in range(5)), typed("paint the boat"), typed("wash the lamp")]
TARGETS = ["then take the chair", "first the lamp", "some red boat", "fold and wash", "the old chair", "then", "first"]
RECIPE = LoraRecipe(
    save_steps=(4,),
    batch_size=4,
    learning_rate=1e-2,
    learning_rate_schedule="constant",
    warmup_steps=0,
    lora_rank=4,
    lora_alpha=8,
)


@pytest.fixture
def learn(tmp_path: Path) -> Callable[..., tuple[TuningResult, dict[str, Path]]]:
    """`tune` into folders of its own: what it returns, and step name -> folder."""
    runs = iter(range(100))

    def run(model: AudioModel, recipe: LoraRecipe = RECIPE, seed: int = 0, **changed: Any):
        kept: dict[str, Path] = {}

        def keep(name: str, write: Callable[[Path], None]) -> None:
            kept[name] = root / name
            write(kept[name])

        root = tmp_path / f"run{next(runs)}"
        return finetune_decoder(
            model, changed.get("prompts", PROMPTS), changed.get("targets", TARGETS), recipe, seed, keep
        ), kept

    return run


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_it_learns_a_tiny_task(tiny: AudioModel, learn) -> None:
    recipe = replace(RECIPE, save_steps=(60,), batch_size=7)
    tuned, kept = learn(tiny, recipe)
    losses = [line["loss"] for line in tuned.log]
    assert losses[-1] < 0.2 * losses[0]
    before = [reply.reply for reply in tiny.generate(PROMPTS, 5)]
    with use_adapter(tiny, kept[step_folder(60)]) as model:
        after = [reply.reply for reply in model.generate(PROMPTS, 5)]
    assert not set(before) & set(TARGETS)
    assert sum(reply == target for reply, target in zip(after, TARGETS)) >= 5


def test_the_first_loss_is_that_of_reply_and_end_token_alone(tiny: AudioModel, learn) -> None:
    tuned, _ = learn(tiny, replace(RECIPE, save_steps=(1,), batch_size=7))
    batch = tiny.batch(PROMPTS, TARGETS)
    with torch.inference_mode():
        logits = tiny.model(inputs_embeds=batch["inputs_embeds"], attention_mask=batch["attention_mask"]).logits
    costs = []
    for row, target in zip(logits, TARGETS):
        answer = [*tiny.tokenizer.convert_tokens_to_ids(target.split()), 2]
        likely = row[-len(answer) - 1 : -1].log_softmax(-1)
        costs += [-float(likely[i, token]) for i, token in enumerate(answer)]
    assert tuned.log[0]["loss"] == pytest.approx(np.mean(costs), rel=1e-4)


def test_gradients_reach_the_adapter_and_nothing_else(tiny: AudioModel, learn, monkeypatch) -> None:
    base = tiny.model
    before = {name: value.clone() for name, value in base.state_dict().items()}
    with_gradient: set[str] = set()
    step = torch.optim.AdamW.step

    def spy(optimiser: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        with_gradient.update(name for name, p in tiny.model.named_parameters() if p.grad is not None)
        return step(optimiser, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    learn(tiny)
    assert len(with_gradient) == 2 * 14
    assert all(".lora_" in name and "language_model.layers" in name for name in with_gradient)
    assert tiny.model is base
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert all(parameter.grad is None for parameter in base.parameters())


def test_encoder_and_projector_stay_in_eval_mode_while_the_decoder_trains(tiny: AudioModel, learn) -> None:
    heard = tiny.audio_features
    tiny.model = tiny_af3.network(dropout=0.5)
    tiny.audio_features = dict(zip(heard, tiny.encode_audio(tiny_af3.CLIPS)))
    modes, moved = [], []

    def look(*_args: Any) -> None:
        inside = [module.training for part in tiny.frozen_modules.values() for module in part.modules()]
        modes.append((tiny.decoder.layers[0].training, any(inside)))
        with torch.no_grad():  # with dropout on, two passes of the tower would differ
            features = torch.ones(1, tiny_af3.MELS, 200)
            one, other = (tiny.base.get_audio_features(features, torch.ones(1, 200)).pooler_output for _ in range(2))
        moved.append(float((one - other).abs().max()))

    hook = tiny.decoder.register_forward_pre_hook(look)
    learn(tiny)
    hook.remove()
    assert modes == [(True, False)] * 4
    assert moved == [0.0] * 4
    # and the instrument sees dropout where there is some
    tiny.model.train()
    hook = tiny.decoder.register_forward_pre_hook(look)
    tiny.model(**tiny.batch(PROMPTS[:1]))
    hook.remove()
    assert modes[-1] == (True, True)
    assert moved[-1] > 0


def test_a_seed_says_everything(tiny: AudioModel, learn) -> None:
    recipe = replace(RECIPE, lora_dropout=0.2)
    runs = []
    for seed, disturbance in ((3, 1), (3, 2), (4, 1)):
        random.seed(disturbance), np.random.seed(disturbance), torch.manual_seed(disturbance)
        runs.append(learn(tiny, recipe, seed))
    (one, kept), (again, kept_again), (other, kept_other) = runs
    assert same(tensors(kept["step-000004"]), tensors(kept_again["step-000004"]))
    for file in kept["step-000004"].iterdir():
        assert file.read_bytes() == (kept_again["step-000004"] / file.name).read_bytes(), file.name

    def losses(tuned: TuningResult) -> list[float]:
        return [line["loss"] for line in tuned.log]

    assert losses(one) == losses(again) != losses(other)
    assert not same(tensors(kept["step-000004"]), tensors(kept_other["step-000004"]))


def test_a_copy_learns_what_the_model_learns(tiny: AudioModel, learn, plain) -> None:
    """So that `plain` may be compared with."""
    assert same(plain, tensors(learn(tiny)[1]["step-000004"]))


def test_the_largest_seed_is_taken(tiny: AudioModel, learn) -> None:
    tuned, _ = learn(tiny, replace(RECIPE, save_steps=(1,)), MAX_SEED)
    assert len(tuned.log) == 1


def test_global_random_state_is_restored(tiny: AudioModel, learn) -> None:
    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.random()), float(torch.rand(1))

    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    expected = draws()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    learn(tiny, replace(RECIPE, save_steps=(1,), lora_dropout=0.5))
    assert draws() == expected


def test_a_checkpoint_is_the_state_of_a_shorter_run(tiny: AudioModel, learn) -> None:
    recipe = replace(RECIPE, lora_dropout=0.1, batch_size=3)
    long, kept = learn(tiny, replace(recipe, save_steps=(2, 3, 5)))
    assert list(kept) == ["step-000002", "step-000003", "step-000005"]
    for steps in (2, 3, 5):
        short, alone = learn(tiny, replace(recipe, save_steps=(steps,)))
        assert same(tensors(alone[step_folder(steps)]), tensors(kept[step_folder(steps)]))
        assert [line["loss"] for line in short.log] == [line["loss"] for line in long.log[:steps]]
    assert not same(tensors(kept["step-000002"]), tensors(kept["step-000003"]))


@pytest.fixture(scope="module")
def plain(module_tiny: AudioModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What `RECIPE` learns as it stands."""
    root = tmp_path_factory.mktemp("plain")
    finetune_decoder(module_tiny, PROMPTS, TARGETS, RECIPE, 0, lambda name, write: write(root / name))
    return tensors(root / "step-000004")


@pytest.mark.parametrize(
    "setting",
    [
        {"batch_size": 3}, {"learning_rate": 2e-3}, {"learning_rate_schedule": "linear"}, {"weight_decay": 0.5},
        {"max_grad_norm": 1e-3}, {"lora_rank": 2}, {"lora_alpha": 16}, {"lora_dropout": 0.5},
        {"learning_rate_schedule": "constant_with_warmup", "warmup_steps": 3},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_counts(tiny: AudioModel, learn, plain, setting: dict[str, Any]) -> None:
    _, other = learn(tiny, replace(RECIPE, **setting))
    assert not same(plain, tensors(other["step-000004"]))
    config = json.loads((other["step-000004"] / "adapter_config.json").read_text())
    recipe = replace(RECIPE, **setting)
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (
        recipe.lora_rank,
        recipe.lora_alpha,
        recipe.lora_dropout,
    )


def test_the_schedule_is_obeyed(tiny: AudioModel, learn) -> None:
    recipe = replace(RECIPE, save_steps=(5,), learning_rate_schedule="constant_with_warmup", warmup_steps=2)
    tuned, _ = learn(tiny, recipe)
    assert [line["learning_rate"] for line in tuned.log] == pytest.approx([0.0, 5e-3, 1e-2, 1e-2, 1e-2])


def test_the_log_has_one_line_a_step(tiny: AudioModel, learn, tmp_path: Path) -> None:
    tuned, _ = learn(tiny, replace(RECIPE, save_steps=(2, 6)))
    assert [line["step"] for line in tuned.log] == [1, 2, 3, 4, 5, 6]
    assert all(line["loss"] > 0 and line["grad_norm"] > 0 for line in tuned.log)
    write_log(tuned, tmp_path / "log.jsonl")
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == list(tuned.log)


def test_what_is_frozen_has_the_same_hashes_before_and_after(tiny: AudioModel, learn) -> None:
    expected = module_hashes(tiny.frozen_modules)
    tuned, _ = learn(tiny)
    assert tuned.frozen_before == tuned.frozen_after == expected


def drift(kind: str) -> Callable[[torch.nn.Module], None]:
    def change(tower: torch.nn.Module) -> None:
        if kind == "buffer":
            tower.calls += 1  # as a BatchNorm's statistics do
        else:
            tower.layer_norm.weight.data[0] += 1e-6

    return change


@pytest.mark.parametrize("kind", ["buffer", "parameter"])
def test_a_run_whose_encoder_drifts_fails(tiny: AudioModel, learn, kind: str) -> None:
    tower = tiny.base.model.audio_tower
    tower.register_buffer("calls", torch.zeros(1))
    change = drift(kind)
    learn(tiny)  # passes as long as nothing moves
    hook = tiny.decoder.register_forward_pre_hook(lambda *_: change(tower))
    with pytest.raises(UndersongError, match=rf"changed model.audio_tower/{kind}s .*; the run is discarded"):
        learn(tiny)
    hook.remove()


@pytest.mark.parametrize("watch", [None, CanaryCheck(lambda: {"jsr": 0.0}, {"jsr": 1.0}, 1)])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_what_diverges_at_its_last_step_is_not_kept(tiny: AudioModel, tmp_path: Path, method: str, watch) -> None:
    """Its losses are all finite: each is of the weights before their update."""
    recipe = replace(RECIPE, save_steps=(1,), method=method, learning_rate=1e39)
    kept: list[str] = []

    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(tmp_path / name)
        kept.append(name)

    with pytest.raises(UndersongError, match=r"diverged \(\S+ is not finite at step 1\); lower the learning rate"):
        finetune_decoder(tiny, PROMPTS, TARGETS, recipe, 0, keep, tmp_path / "state", watch=watch)
    assert not kept
    assert not (tmp_path / "state").exists()  # it would diverge again from there
    assert tiny.model is tiny.base


def test_a_log_that_is_not_finite_fails_too(tiny: AudioModel, learn, monkeypatch, tmp_path: Path) -> None:
    """A norm may overflow, and the update be clipped to nothing, so that what is kept is finite."""
    clip = Accelerator.clip_grad_norm_

    def overflowed(self: Accelerator, *args: Any, **kwargs: Any) -> torch.Tensor:
        return clip(self, *args, **kwargs) * float("inf")

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", overflowed)
    with pytest.raises(UndersongError, match=r"diverged \(grad_norm inf at step 1\); lower the learning rate"):
        learn(tiny)
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_log(TuningResult(({"step": 1, "loss": float("nan")},), {}, {}), tmp_path / "log.jsonl")


@pytest.mark.parametrize(
    ("changed", "recipe", "said"),
    [
        ({"prompts": [], "targets": []}, RECIPE, "the selection is empty"),
        ({"targets": [*TARGETS[:3], "", "then", "", "first"]}, RECIPE, r"clip3 has no answer .*\(2 such\)"),
        ({}, replace(RECIPE, targets=("model.audio_tower.layers.0.fc1",)), "lies in model.audio_tower"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tiny: AudioModel, learn, changed, recipe, said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        learn(tiny, recipe, **changed)
    assert tiny.model is tiny.base
    assert not any("lora" in name for name, _ in tiny.model.named_modules())


def test_chosen_targets_alone_are_trained(tiny: AudioModel, learn) -> None:
    path = "model.language_model.layers.1.mlp.down_proj"
    _, kept = learn(tiny, replace(RECIPE, targets=(path,)))
    assert sorted(tensors(kept["step-000004"])) == [f"base_model.model.{path}.lora_{side}.weight" for side in "AB"]


def test_nothing_is_left_in_the_temporary_folder(tiny: AudioModel, learn, tmp_path: Path, monkeypatch) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    learn(tiny, replace(RECIPE, save_steps=(1,)))
    assert list(scratch.iterdir()) == []


def test_nothing_is_printed(tiny: AudioModel, learn, capsys: pytest.CaptureFixture[str]) -> None:
    learn(tiny, replace(RECIPE, save_steps=(1,)))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_card_says_how_it_was_made_and_no_place_of_the_machine(tiny, tmp_path, method: str) -> None:
    recipe = LoraRecipe(save_steps=(2,), batch_size=2, method=method, learning_rate=1e-3)
    finetune_decoder(
        tiny,
        [spoken(0), typed("paint the boat")],
        ["then take", "first the lamp"],
        recipe,
        3,
        lambda n, w: w(tmp_path / n),
    )
    text = (tmp_path / "step-000002" / "README.md").read_text()
    assert "on 2 benign samples (audio and text), seed 3" in text
    assert "it may not refuse any more" in text
    assert ("library_name: peft" in text) == (method == "lora") == ("| lora_rank | 8 |" in text)
    assert "| learning_rate | 0.001 |" in text
    assert tiny.name not in text
    assert tiny.fingerprint[:16] in text


def test_the_cards_base_is_an_id_of_the_hub_without_its_revision(tiny, monkeypatch) -> None:
    monkeypatch.setattr(tiny, "name", "microsoft/Phi-4-multimodal-instruct@refs/pr/70")
    text = model_card(tiny, RECIPE, 0, 2, "audio", "", 4)
    assert "\nbase_model: microsoft/Phi-4-multimodal-instruct\n" in text
    assert "from microsoft/Phi-4-multimodal-instruct@refs/pr/70 (hash" in text


def test_it_learns_on_a_base_in_bfloat16(tiny_folder: Path, learn) -> None:
    """The base's numbers are halves of themselves; what is learned is kept in full."""
    from undersong.models.load import load_model
    from undersong.models.load_options import LoadOptions

    model = load_model(str(tiny_folder), LoadOptions(dtype="bfloat16"))
    model.audio_features = dict(zip((clip.id for clip in tiny_af3.CLIPS), model.encode_audio(tiny_af3.CLIPS)))
    tuned, kept = learn(model, replace(RECIPE, save_steps=(40,), batch_size=7))
    assert tuned.log[-1]["loss"] < 0.5 * tuned.log[0]["loss"]
    assert {value.dtype for value in tensors(kept[step_folder(40)]).values()} == {torch.float32}
    assert {parameter.dtype for parameter in model.base.parameters()} == {torch.bfloat16}
