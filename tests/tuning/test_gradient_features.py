"""Gradient vectors are those of `tune`'s first step, projected; of each sample alone; and they leave no trace."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tiny_af3
import torch
from tiny_af3 import spoken, typed

from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.models.weights import module_hashes
from undersong.tuning import gradient_features
from undersong.tuning.config import LoraRecipe
from undersong.tuning.gradient_features import gradient_vectors, sign_blocks
from undersong.tuning.reproducibility import temporary_seed
from undersong.tuning.train import finetune_decoder
from undersong.types import Embeddings, UndersongError

PROMPTS = [*(spoken(i) for i in range(4)), typed("paint the boat"), typed("wash the lamp")]
REPLIES = ["then take the chair", "first the lamp", "some red boat", "fold and wash", "the old chair", "then"]
IDS = tuple(prompt.sample.id for prompt in PROMPTS)


def rows(made: Embeddings) -> dict[str, np.ndarray]:
    return dict(zip(made.ids, made.vectors))


def naive(model: AudioModel, dim: int, seed: int, rank: int = 8, alpha: int = 16) -> np.ndarray:
    """By the formula: the gradient of the base's own weights, s * G A^T, times the whole matrix of signs at once.

    No LoRA is on when the loss is taken, the loss is written out, and the whole batch is passed with its padding.
    """
    with temporary_seed(seed), new_lora(model, rank, alpha, 0.0, None) as peft_model:
        a = {
            name.removeprefix("base_model.model.").partition(".lora_A.")[0]: value.detach().double()
            for name, value in peft_model.named_parameters()
            if ".lora_A." in name
        }
    weights = {path: model.base.get_submodule(path).weight for path in a}
    batch = model.batch(PROMPTS, REPLIES)
    labels = batch.pop("labels")
    likely = model.base(**batch).logits[:, :-1].log_softmax(-1)
    out = []
    for row, said in zip(likely, labels[:, 1:]):
        at = (said != -100).nonzero()[:, 0]
        loss = -row[at, said[at]].mean()
        made = torch.autograd.grad(loss, list(weights.values()), retain_graph=True)
        total = np.zeros(dim)
        for path, gradient in zip(weights, made):
            b = (alpha / rank) * gradient.double() @ a[path].T
            signs = np.concatenate([block.numpy() for _, block in sign_blocks(path, b.numel(), dim, seed)])
            total += b.flatten().numpy() @ signs / np.sqrt(dim)
        out.append(total)
    return np.array(out)


@pytest.mark.parametrize(("dim", "seed"), [(64, 0), (100, 3)])
def test_equal_to_the_explicit_projection_of_the_weights_gradient(tiny: AudioModel, dim: int, seed: int) -> None:
    plain = gradient_vectors(tiny, PROMPTS, REPLIES, dim=dim, seed=seed, normalize=False)
    expected = naive(tiny, dim, seed)
    assert plain.ids == IDS
    assert plain.vectors.dtype == np.float32
    np.testing.assert_allclose(plain.vectors, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    assert plain.frames.tolist() == [len(reply.split()) + 1 for reply in REPLIES]
    unit = gradient_vectors(tiny, PROMPTS, REPLIES, dim=dim, seed=seed)
    lengths = np.linalg.norm(plain.vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(unit.vectors, plain.vectors / lengths, atol=1e-6)


def test_it_is_the_first_gradient_that_tuning_sees(tiny: AudioModel, monkeypatch) -> None:
    """One sample a batch, plain SGD's view: the gradients at the first optimiser step, projected by hand."""
    seen: dict[str, torch.Tensor] = {}
    step = torch.optim.AdamW.step

    def spy(optimiser: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        for name, parameter in tiny.model.named_parameters():
            if parameter.grad is not None:
                seen.setdefault(name, parameter.grad.clone())
        return step(optimiser, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    recipe = LoraRecipe(
        save_steps=(1,), batch_size=1, warmup_steps=0, learning_rate_schedule="constant", max_grad_norm=1e9
    )
    finetune_decoder(tiny, PROMPTS[:1], REPLIES[:1], recipe, 4, lambda name, write: None)
    assert all(not value.any() for name, value in seen.items() if ".lora_A." in name)
    total = np.zeros(32)
    for name, value in seen.items():
        if ".lora_B." in name:
            path = name.removeprefix("base_model.model.").partition(".lora_B.")[0]
            signs = np.concatenate([block.numpy() for _, block in sign_blocks(path, value.numel(), 32, 4)])
            total += value.flatten().numpy() @ signs / np.sqrt(32)
    (mine,) = gradient_vectors(tiny, PROMPTS[:1], REPLIES[:1], dim=32, seed=4, normalize=False).vectors
    np.testing.assert_allclose(mine, total, rtol=1e-3, atol=1e-5)


def test_deterministic_in_the_seed_and_leaves_the_callers_stream_alone(tiny: AudioModel) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = gradient_vectors(tiny, PROMPTS, REPLIES, dim=64, seed=5)
    assert torch.equal(torch.rand(3), expected)
    torch.manual_seed(2)
    again = gradient_vectors(tiny, PROMPTS, REPLIES, dim=64, seed=5)
    other = gradient_vectors(tiny, PROMPTS, REPLIES, dim=64, seed=6)
    assert np.array_equal(one.vectors, again.vectors)
    assert np.abs(one.vectors - other.vectors).max() > 0.05


def test_a_vector_depends_on_its_sample_alone(tiny: AudioModel, monkeypatch) -> None:
    """Not on order, company, padding, or on how many wait for one projection."""
    whole = rows(gradient_vectors(tiny, PROMPTS, REPLIES, dim=64))
    backward = rows(gradient_vectors(tiny, PROMPTS[::-1], REPLIES[::-1], dim=64))
    monkeypatch.setattr(gradient_features, "MAX_BUFFERED_ENTRIES", 1)
    single = rows(gradient_vectors(tiny, PROMPTS, REPLIES, dim=64))
    monkeypatch.setattr(gradient_features, "MAX_BUFFERED_SAMPLES", 4)
    monkeypatch.setattr(gradient_features, "MAX_BUFFERED_ENTRIES", 2**28)
    fours = rows(gradient_vectors(tiny, PROMPTS, REPLIES, dim=64))
    (alone,) = gradient_vectors(tiny, PROMPTS[2:3], REPLIES[2:3], dim=64).vectors
    np.testing.assert_allclose(whole[IDS[2]], alone, atol=1e-5)
    for id in IDS:
        for other in (backward, single, fours):
            np.testing.assert_allclose(whole[id], other[id], atol=1e-5)


def test_samples_are_passed_one_at_a_time_in_eval_mode_without_padding(tiny: AudioModel) -> None:
    tiny.model = tiny_af3.network(dropout=0.5)
    tiny.audio_features = dict(zip(tiny.audio_features, tiny.encode_audio(tiny_af3.CLIPS)))
    seen = []

    def look(_module: Any, _args: tuple, kwargs: dict[str, Any]) -> None:
        seen.append((kwargs["attention_mask"].shape[0], bool(kwargs["attention_mask"].all()), tiny.base.training))

    hook = tiny.base.register_forward_pre_hook(look, with_kwargs=True)
    gradient_vectors(tiny, PROMPTS, REPLIES, dim=8)
    hook.remove()
    assert seen == [(1, True, False)] * len(PROMPTS)


def test_the_base_is_as_it_was_and_the_encoder_is_never_run(tiny: AudioModel, monkeypatch) -> None:
    base, wanted = tiny.base, {name: p.requires_grad for name, p in tiny.base.named_parameters()}
    before = {name: value.clone() for name, value in base.state_dict().items()}
    frozen, calls = module_hashes(tiny.frozen_modules), []
    for module in tiny.frozen_modules.values():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    gradient_vectors(tiny, PROMPTS, REPLIES, dim=16)
    assert tiny.model is base
    assert before.keys() == base.state_dict().keys()
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    assert {name: p.requires_grad for name, p in base.named_parameters()} == wanted
    assert all(parameter.grad is None for parameter in base.parameters())
    assert module_hashes(tiny.frozen_modules) == frozen
    assert calls == []


def test_targets_limit_what_learns_and_may_not_reach_the_encoder(tiny: AudioModel) -> None:
    path = tiny.linear_paths()[0]
    one = gradient_vectors(tiny, PROMPTS, REPLIES, dim=64, targets=[path], normalize=False)
    both = gradient_vectors(tiny, PROMPTS, REPLIES, dim=64, targets=tiny.linear_paths()[:2], normalize=False)
    assert np.linalg.norm(one.vectors - both.vectors) > 0.01 * np.linalg.norm(one.vectors)
    tower = next(f"{part}.layers.0.fc1" for part in tiny.frozen_modules if "tower" in part)
    with pytest.raises(UndersongError, match="lies in"):
        gradient_vectors(tiny, PROMPTS, REPLIES, targets=[tower])
    assert tiny.model is tiny.base


def test_close_means_that_a_step_on_one_helps_the_other(tiny: AudioModel) -> None:
    """The cosine's sign is that of what a small step down one sample's gradient does to the other's loss."""
    made = gradient_vectors(tiny, PROMPTS, REPLIES, dim=4096)
    alike = made.vectors @ made.vectors.T
    paths = tiny.linear_paths()
    agree = total = 0
    with temporary_seed(0), new_lora(tiny, 8, 16, 0.0, paths) as peft_model:
        b = [p for name, p in peft_model.named_parameters() if ".lora_B." in name]

        def loss(i: int) -> torch.Tensor:
            return peft_model(**tiny.batch(PROMPTS[i : i + 1], REPLIES[i : i + 1])).loss

        before = [float(loss(i).detach()) for i in range(len(PROMPTS))]
        for i in range(len(PROMPTS)):
            steps = torch.autograd.grad(loss(i), b)
            size = 1e-3 / float(torch.cat([s.flatten() for s in steps]).norm())
            with torch.no_grad():
                for parameter, step in zip(b, steps):
                    parameter -= size * step
                for j in range(len(PROMPTS)):
                    if i != j and abs(alike[i, j]) > 0.1:  # beyond what the projection blurs
                        total += 1
                        agree += (float(loss(j).detach()) < before[j]) == (alike[i, j] > 0)
                for parameter in b:
                    parameter.zero_()
    assert total >= 10
    assert agree == total


def test_away_is_the_other_direction(tiny: AudioModel) -> None:
    towards = gradient_vectors(tiny, PROMPTS, REPLIES, dim=16)
    away = gradient_vectors(tiny, PROMPTS, REPLIES, dim=16, negate=True)
    assert np.array_equal(away.vectors, -towards.vectors)


def test_what_teaches_nothing_is_quarantined_with_its_reason(tiny: AudioModel, monkeypatch) -> None:
    """A zero gradient, one that is no number, no reply, a clip nobody heard: each left out, the others as they were."""
    whole = rows(gradient_vectors(tiny, PROMPTS, REPLIES, dim=16))
    width = {i: tiny.batch(PROMPTS[i : i + 1], REPLIES[i : i + 1])["labels"].shape[1] for i in range(len(PROMPTS))}
    assert sorted(width.values()).count(width[0]) == sorted(width.values()).count(width[3]) == 1

    def spoil(_module: Any, _args: tuple, logits: torch.Tensor) -> torch.Tensor:
        factor = {width[0]: 0.0, width[3]: float("nan")}.get(logits.shape[1], 1.0)
        return logits * factor

    hook = tiny.base.get_output_embeddings().register_forward_hook(spoil)
    unheard = replace(PROMPTS[1], sample=replace(PROMPTS[1].sample, id="nobody"))
    replies = [*REPLIES[:5], "", "then"]
    made = gradient_vectors(tiny, [*PROMPTS, unheard], replies, dim=16)
    hook.remove()
    reasons = {item.id: item.reason for item in made.quarantined}
    assert made.ids == (IDS[1], IDS[2], IDS[4])
    assert reasons.keys() == {IDS[0], IDS[3], IDS[5], "nobody"}
    assert "zero" in reasons[IDS[0]]
    assert "not finite" in reasons[IDS[3]]
    assert "no reply" in reasons[IDS[5]]
    assert "has no audio features" in reasons["nobody"]
    for id, vector in rows(made).items():
        np.testing.assert_allclose(vector, whole[id], atol=1e-6)


def test_nothing_to_do_gives_no_rows(tiny: AudioModel) -> None:
    made = gradient_vectors(tiny, [], [], dim=16)
    assert (made.ids, made.vectors.shape, made.quarantined) == ((), (0, 16), ())


def test_what_does_not_fit_is_refused(tiny: AudioModel) -> None:
    with pytest.raises(UndersongError, match="6 prompts have 5 replies"):
        gradient_vectors(tiny, PROMPTS, REPLIES[:5])
    with pytest.raises(UndersongError, match="more than once"):
        gradient_vectors(tiny, [PROMPTS[0], PROMPTS[0]], REPLIES[:2])
    twice = replace(PROMPTS[0], sample=replace(PROMPTS[0].sample, pcm_hash="clip0", id="twin"))
    with pytest.raises(UndersongError, match="same vector"):
        gradient_vectors(tiny, [PROMPTS[0], twice], ["then", "then"], dim=8)
