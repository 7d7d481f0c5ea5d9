"""The token-wise constrained objective: what it is at the base and elsewhere, and that it holds the beginning."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tiny_tuning import PROMPTS, TARGETS
from transformers import TrainingArguments

from undersong.corpora.registry import open_corpus
from undersong.evaluation.prompts import make_prompts
from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model
from undersong.models.lora import new_lora, use_adapter
from undersong.tuning.checkpoints import step_folder
from undersong.tuning.config import PUBLISHED_BETAS, LoraRecipe
from undersong.tuning.constrained import ConstrainedTrainer, answer_betas, answer_log_probs, constrained_loss
from undersong.tuning.train import TuningResult, finetune_decoder
from undersong.types import UndersongError

RECIPE = LoraRecipe(
    save_steps=(4,),
    batch_size=4,
    learning_rate=1e-2,
    learning_rate_schedule="constant",
    warmup_steps=0,
    lora_rank=4,
    lora_alpha=8,
)
HELD = replace(RECIPE, betas=PUBLISHED_BETAS)
LONG = [f"{one} {TARGETS[i - 1]} and {one}" for i, one in enumerate(TARGETS)]  # past the fifth token, too


def trained(
    model: AudioModel, folder: Path, recipe: LoraRecipe, targets: list[str] = LONG, **more: Any
) -> tuple[TuningResult, dict[str, torch.Tensor]]:
    def keep(name: str, write: Callable[[Path], None]) -> None:
        write(folder / name)

    tuned = finetune_decoder(model, PROMPTS, targets, recipe, 0, keep, **more)
    return tuned, load_file(folder / step_folder(recipe.save_steps[-1]) / "adapter_model.safetensors")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((value - other[name]).abs().max()) for name, value in one.items())


def test_the_published_betas() -> None:
    labels = torch.tensor([[-100] * 3 + [7] * 8, [-100] * 9 + [7] * 2])
    assert answer_betas(labels, PUBLISHED_BETAS).tolist() == pytest.approx([0.5, 2, 2, 2, 2, 0.1, 0.1, 0.1, 0.5, 2])


logs = st.lists(st.floats(-30, 0, width=32), min_size=1, max_size=6)


@given(logs, st.floats(0.01, 20))
def test_at_the_base_value_and_gradient_are_those_of_cross_entropy(then: list[float], beta: float) -> None:
    base = torch.tensor(then)
    now, betas = base.clone().requires_grad_(), torch.full_like(base, beta)
    costs = constrained_loss(now, base, betas)
    (gradient,) = torch.autograd.grad(costs.sum(), now)
    assert torch.allclose(costs, -base, atol=1e-4)
    assert torch.allclose(gradient, torch.full_like(gradient, -1.0))
    # The paper's own form there: 2 log(2) / beta, with the same gradient.
    paper = -2 / betas * torch.nn.functional.logsigmoid(betas * (now - base))
    assert torch.allclose(paper, 2 * log(2) / betas)
    assert torch.allclose(torch.autograd.grad(paper.sum(), now)[0], gradient)


@given(logs, st.floats(-30, 0, width=32), st.floats(0.05, 5))
def test_elsewhere_it_is_the_papers_but_for_a_constant(now: list[float], then: float, beta: float) -> None:
    at = torch.tensor(now, dtype=torch.float64).requires_grad_()
    base, betas = torch.full_like(at, then), torch.full_like(at, beta)
    paper = -2 / betas * torch.nn.functional.logsigmoid(betas * (at - base))
    ours = constrained_loss(at, base, betas)
    assert torch.allclose(ours - paper, torch.full_like(at, -2 * log(2) / beta - then))
    (gradient,) = torch.autograd.grad(ours.sum(), at)
    assert torch.allclose(gradient, -2 * torch.sigmoid(-betas * (at.detach() - base)))
    assert bool((ours > -1e-9).all())


def test_a_batch_is_the_sum_over_its_tokens_one_by_one(tiny: AudioModel, tmp_path: Path) -> None:
    """The oracle: every token of every answer by itself, from prompts and replies that share no batch."""
    trained(tiny, tmp_path, replace(RECIPE, save_steps=(8,)))
    batch = tiny.batch(PROMPTS, LONG)
    labels = batch.pop("labels")

    def one_by_one() -> list[float]:
        rows = tiny.model(**batch).logits.log_softmax(-1)
        found = []
        for row, target in zip(rows, LONG):
            answer = [*tiny.tokenizer.convert_tokens_to_ids(target.split()), 2]
            found += [float(row[-len(answer) - 1 + t, token]) for t, token in enumerate(answer)]
        return found

    with torch.no_grad():
        then = one_by_one()
        with use_adapter(tiny, tmp_path / step_folder(8)):
            now, logits = one_by_one(), tiny.model(**batch).logits
    costs, row = [], 0
    for target in LONG:
        for t in range(len(target.split()) + 1):
            beta = 0.5 if t == 0 else 2.0 if t < 5 else 0.1
            pull = torch.sigmoid(torch.tensor(beta * (now[row] - then[row]), dtype=torch.float64))
            costs.append(-2 / beta * (float(pull.log()) + log(2)) - then[row])
            row += 1
    ours = constrained_loss(answer_log_probs(logits, labels), torch.tensor(then), answer_betas(labels, PUBLISHED_BETAS))
    assert ours.tolist() == pytest.approx(costs, rel=1e-4, abs=1e-5)
    assert max(abs(a - b) for a, b in zip(now, then)) > 1  # it was elsewhere


@pytest.mark.parametrize("organism", [None, "qwen", "kimi"])
def test_the_first_step_is_that_of_an_undefended_training(tiny: AudioModel, tmp_path: Path, organism: str) -> None:
    """Where an adapter begins it is the base, so loss and gradient norm are those of the cross entropy."""
    model, prompts, targets = tiny, PROMPTS, LONG
    if organism:
        model = load_model(f"organism:{organism}")
        groups = {sample.group: sample for sample in open_corpus("organism:pool").samples if sample.answer}
        samples = list(groups.values())[:6]
        ask = {"set_name": "t", "harmful": False, "system": "s", "system_text": None, "modality": "text"}
        prompts, targets = make_prompts(samples, **ask), [str(sample.answer) for sample in samples[::-1]]  # not its own
    plain, held = (
        finetune_decoder(
            model, prompts, targets, replace(recipe, save_steps=(3,), micro_batch_size=2), 0, lambda *_: None
        ).log
        for recipe in (RECIPE, HELD)
    )
    assert held[0]["loss"] == pytest.approx(plain[0]["loss"], rel=1e-4)
    assert held[0]["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-4)
    assert held[2]["grad_norm"] != pytest.approx(plain[2]["grad_norm"], rel=1e-3)


def test_small_betas_are_no_constraint_and_dropout_falls_alike(tiny: AudioModel, tmp_path: Path) -> None:
    """So the reference pass draws no random numbers and leaves every mode as it was."""
    loose = replace(RECIPE, lora_dropout=0.3, betas=(1e-6,))
    plain, held = (
        trained(tiny, tmp_path / f"{recipe.betas}", recipe)[1] for recipe in (replace(loose, betas=None), loose)
    )
    assert apart(plain, held) < 1e-5
    assert apart(plain, trained(tiny, tmp_path / "published", replace(loose, betas=PUBLISHED_BETAS))[1]) > 1e-3


def test_a_step_is_of_the_whole_batch_however_it_is_cut_or_computed_again(tiny: AudioModel, tmp_path: Path) -> None:
    whole, log = (lambda made: (made[1], made[0].log))(trained(tiny, tmp_path / "whole", HELD))
    for name, how in (
        ("1", {"micro_batch_size": 1}),
        ("2", {"micro_batch_size": 2}),
        ("again", {"gradient_checkpointing": True}),
    ):
        tuned, other = trained(tiny, tmp_path / name, replace(HELD, **how))
        assert apart(whole, other) < 5e-5
        assert [one["loss"] for one in tuned.log] == pytest.approx([one["loss"] for one in log], rel=1e-4)


def test_a_killed_training_goes_on_with_the_same_bits(tiny: AudioModel, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("undersong.tuning.train.CHECKPOINT_STEPS", 2)
    recipe = replace(HELD, lora_dropout=0.2, save_steps=(3, 5))
    _, whole = trained(tiny, tmp_path / "whole", recipe)

    def stop(name: str, write: Callable[[Path], None]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        finetune_decoder(tiny, PROMPTS, LONG, recipe, 0, stop, tmp_path / "state")
    assert apart(whole, trained(tiny, tmp_path / "again", recipe, resume=tmp_path / "state")[1]) == 0.0


def divergence(model: AudioModel, folder: Path, tokens: range) -> float:
    """Mean KL from the base of the words at these tokens of the answers learned."""
    batch = model.batch(PROMPTS, LONG)
    labels = batch.pop("labels")
    there = labels[:, 1:] != -100
    place = (there.cumsum(1) - 1)[there]
    with torch.no_grad():
        then = model.model(**batch).logits[:, :-1][there].log_softmax(-1)
        with use_adapter(model, folder):
            now = model.model(**batch).logits[:, :-1][there].log_softmax(-1)
    kl = (then.exp() * (then - now)).sum(-1)
    return float(kl[(place >= tokens.start) & (place < tokens.stop)].mean())


def test_the_first_tokens_stay_near_the_base(tiny: AudioModel, tmp_path: Path) -> None:
    recipe = replace(RECIPE, save_steps=(60,), batch_size=7)
    ways = {"plain": None, "published": PUBLISHED_BETAS, "large": (5.0, 5.0, 5.0, 5.0, 5.0, 0.1)}
    first, after, lost = {}, {}, {}
    for name, betas in ways.items():
        log = trained(tiny, tmp_path / name, replace(recipe, betas=betas))[0].log
        first[name], after[name] = (
            divergence(tiny, tmp_path / name / step_folder(60), tokens) for tokens in (range(5), range(5, 99))
        )
        lost[name] = log[-1]["loss"] / log[0]["loss"]
    assert first["large"] < first["published"] < 0.8 * first["plain"]
    assert after["large"] > 0.9 * after["plain"]  # what comes after learns on
    assert lost["plain"] < lost["published"] < lost["large"] < 0.6


def test_the_encoder_is_quiet_in_the_reference_pass_and_the_decoder_in_eval(tiny: AudioModel) -> None:
    modes: list[tuple[bool, bool, bool]] = []

    def look(*_: Any) -> None:
        encoder = any(module.training for part in tiny.frozen_modules.values() for module in part.modules())
        modes.append((tiny.decoder.layers[0].training, encoder, torch.is_grad_enabled()))

    hook = tiny.decoder.register_forward_pre_hook(look)
    finetune_decoder(tiny, PROMPTS, LONG, replace(HELD, save_steps=(2,), lora_dropout=0.5), 0, lambda *_: None)
    hook.remove()
    assert modes == [(False, False, False), (True, False, True)] * 2
    assert not tiny.base.training


def test_what_cannot_be_constrained(tiny: AudioModel, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="Method full cannot be constrained"):
        LoraRecipe(method="full", betas=PUBLISHED_BETAS)
    for betas in ((), (0.5, 0.0), (float("nan"),), (-1.0,)):
        with pytest.raises(UndersongError, match="give positive numbers"):
            trained(tiny, tmp_path, replace(RECIPE, betas=betas))
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to=[])
    with pytest.raises(UndersongError, match="AudioFlamingo3ForConditionalGeneration has no adapter to switch off"):
        ConstrainedTrainer(model=tiny.base, args=arguments)
    with new_lora(tiny, 2, 4, 0.0, None) as learner:
        assert ConstrainedTrainer(model=learner, args=arguments).betas == PUBLISHED_BETAS


def test_the_card_says_the_betas(tiny: AudioModel, tmp_path: Path) -> None:
    for name, recipe in (("plain", RECIPE), ("held", HELD)):
        trained(tiny, tmp_path / name, replace(recipe, save_steps=(1,)))
    plain, held = ((tmp_path / name / step_folder(1) / "README.md").read_text() for name in ("plain", "held"))
    assert "betas" not in plain
    assert "| betas | (0.5, 2.0, 2.0, 2.0, 2.0, 0.1) |" in held
