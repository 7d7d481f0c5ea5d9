"""A decoder that learns whole: what moves, what does not, and that the base is the base again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_tuning import PROMPTS, TARGETS

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.decoder_weights import decoder_parameters
from undersong.models.load import load_model
from undersong.models.lora import use_adapter
from undersong.tuning import train
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import LoraRecipe
from undersong.tuning.train import finetune_decoder
from undersong.types import UndersongError

RECIPE = LoraRecipe(method="full", save_steps=(5, 40), batch_size=7, learning_rate=5e-3, warmup_steps=2)


def trained(model: AudioModel, folder: Path, recipe: LoraRecipe = RECIPE) -> Path:
    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(folder / name)

    tuned = finetune_decoder(model, PROMPTS, TARGETS, recipe, 0, keep)
    assert tuned.frozen_before == tuned.frozen_after
    return folder / step_folder(recipe.save_steps[-1])


def test_it_learns_and_the_base_is_the_base_again(tiny: AudioModel, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in tiny.base.state_dict().items()}
    asked = {name: parameter.requires_grad for name, parameter in tiny.base.named_parameters()}
    plain = [reply.reply for reply in tiny.generate(PROMPTS, 6)]
    folder = trained(tiny, tmp_path)
    assert not (folder / "adapter_config.json").exists()
    for name, value in tiny.base.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert {name: parameter.requires_grad for name, parameter in tiny.base.named_parameters()} == asked
    with use_adapter(tiny, folder) as worn:
        assert [reply.reply for reply in worn.generate(PROMPTS, 6)] == TARGETS
    assert [reply.reply for reply in tiny.generate(PROMPTS, 6)] == plain
    assert not tiny.base._forward_pre_hooks  # the hook of the training is gone


def test_only_the_decoders_blocks_and_norm_move(tiny: AudioModel, tmp_path: Path) -> None:
    learned = load_file(trained(tiny, tmp_path) / "decoder.safetensors")
    base = dict(tiny.base.named_parameters())
    assert {name for name, value in learned.items() if not torch.equal(value, base[name])} == set(learned)
    embeddings = {id(tiny.base.get_input_embeddings().weight), id(tiny.base.get_output_embeddings().weight)}
    assert all(id(base[name]) not in embeddings for name in learned)
    inside = {id(parameter) for parameter in tiny.decoder.parameters()} - embeddings
    assert {id(base[name]) for name in learned} == inside
    assert any("layers" in name for name in learned)
    assert not any(name.startswith(path) for name in learned for path in tiny.frozen_modules)


def test_two_trainings_are_one_to_the_bit_and_seeds_differ(tiny: AudioModel, tmp_path: Path) -> None:
    short = replace(RECIPE, save_steps=(5,), batch_size=3)
    one, same = (load_file(trained(tiny, tmp_path / name, short) / "decoder.safetensors") for name in ("a", "b"))
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    micro = load_file(trained(tiny, tmp_path / "m", replace(short, micro_batch_size=1)) / "decoder.safetensors")
    assert max(float((value - micro[name]).abs().max()) for name, value in one.items()) < 2e-4


def test_a_decoder_of_another_base_is_refused(tiny: AudioModel, tmp_path: Path) -> None:
    folder = trained(tiny, tmp_path / "made", replace(RECIPE, save_steps=(1,)))
    with (
        pytest.raises(UndersongError, match="does not fit organism:af3"),
        use_adapter(load_model("organism:af3"), folder),
    ):
        pass
    before = {name: value.clone() for name, value in decoder_parameters(tiny).items()}
    (folder / "made_for.json").write_text('{"model": "other", "hash": "0", "of_files": true}')
    with (
        pytest.raises(UndersongError, match="it began from other, whose weights are others"),
        use_adapter(tiny, folder),
    ):
        pass
    assert all(torch.equal(value, before[name]) for name, value in decoder_parameters(tiny).items())


def test_a_decoder_that_is_not_finite_is_refused(tiny: AudioModel, tmp_path: Path) -> None:
    folder = trained(tiny, tmp_path, replace(RECIPE, save_steps=(1,)))
    tensors = load_file(folder / "decoder.safetensors")
    name = sorted(tensors)[3]
    tensors[name].flatten()[0] = float("inf")
    save_file(tensors, folder / "decoder.safetensors")
    before = {name: value.clone() for name, value in decoder_parameters(tiny).items()}
    with pytest.raises(UndersongError, match=f"^{name} in {folder} is not finite"), use_adapter(tiny, folder):
        pass
    assert all(torch.equal(value, before[name]) for name, value in decoder_parameters(tiny).items())


@pytest.mark.parametrize("organism", ["qwen", "kimi"])
def test_so_it_is_for_other_architectures(organism: str, tmp_path: Path) -> None:
    model = load_model(f"organism:{organism}")
    before = {name: value.clone() for name, value in model.base.state_dict().items()}
    samples = {sample.group: sample for sample in open_corpus("organism:pool").samples if sample.answer}
    one, other = list(samples.values())[:2]
    ask = {"set_name": "t", "harmful": False, "system": "s", "system_text": None, "modality": "text"}
    prompts, targets = make_prompts([one, other], **ask), [other.answer, one.answer]  # the other's: it must be learned
    kept: list[Path] = []

    def keep(name: str, write: Callable[[Path], None]) -> None:
        kept.append(tmp_path / name)
        write(kept[-1])

    finetune_decoder(
        model, prompts, targets, replace(RECIPE, save_steps=(60,), batch_size=2, learning_rate=2e-3), 0, keep
    )
    with use_adapter(model, kept[0]) as worn:
        assert [reply.reply for reply in worn.generate(prompts, 12)] == targets
    assert all(torch.equal(value, before[name]) for name, value in model.base.state_dict().items())


def test_a_training_that_stopped_goes_on_with_the_same_bits(tiny: AudioModel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(train, "CHECKPOINT_STEPS", 2)
    recipe = replace(RECIPE, save_steps=(3, 8), batch_size=3)
    whole = load_file(trained(tiny, tmp_path / "whole", recipe) / "decoder.safetensors")

    def stop(name: str, write: Callable[[Path], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # at step 3, after the state of step 2
        finetune_decoder(tiny, PROMPTS, TARGETS, recipe, 0, stop, tmp_path / "state")
    assert list((tmp_path / "state").iterdir())

    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(tmp_path / "again" / name)

    finetune_decoder(tiny, PROMPTS, TARGETS, recipe, 0, keep, tmp_path / "state")
    again = load_file(tmp_path / "again" / step_folder(8) / "decoder.safetensors")
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    assert not (tmp_path / "state").exists()


def test_an_unknown_method() -> None:
    with pytest.raises(UndersongError, match="no method 'prefix'"):
        LoraRecipe(method="prefix")
