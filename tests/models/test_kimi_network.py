"""Kimi-Audio's network against the two-stream original written out by hand, and against transformers' own Qwen2."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tiny_kimi
import torch
from tiny_kimi import OFFSET, SPECIAL_TOKEN_COUNT, sound
from torch.nn.functional import pad
from transformers import Qwen2Config, Qwen2ForCausalLM

from undersong.models.kimi.network import AUDIO_INPUT_NAMES, Fusion, KimiAudioForCausalLM

SPECIAL = OFFSET - SPECIAL_TOKEN_COUNT
END, BEGIN, CLOSE, USER, ASSISTANT, ASKS = (SPECIAL + place for place in (2, 18, 20, 27, 28, 32))
STRUCTURE = {END, BEGIN, CLOSE, USER, ASSISTANT, ASKS}  # these stand in the audio stream, as codes do
STEPS = {"max_new_tokens": 12, "min_new_tokens": 12, "do_sample": False}


@pytest.fixture(scope="module")
def model() -> KimiAudioForCausalLM:
    return tiny_kimi.build()


def spoken(tokens: int, text: tuple[int, ...] = (100, 44)) -> list[int]:
    return [USER, *text, BEGIN, *[OFFSET] * tokens, CLOSE, ASKS, END, ASSISTANT]


def batch(prompts: list[list[int]], sounds: list[dict[str, torch.Tensor]], padding: int) -> dict[str, torch.Tensor]:
    """Rows padded on the left, windows one after the other."""
    longest, widest = max(map(len, prompts)), max((s["code_features"].shape[-1] for s in sounds), default=0)
    rows = [[padding] * (longest - len(p)) + p for p in prompts]
    out = {"input_ids": torch.tensor(rows)}
    out["attention_mask"] = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    if sounds:
        out["input_features"] = torch.cat([s["input_features"] for s in sounds])
        for name in ("code_features", "code_attention_mask"):
            out[name] = torch.cat([pad(s[name], (0, widest - s[name].shape[-1])) for s in sounds])
    return out


def original(model: KimiAudioForCausalLM, ids: list[int], inputs: dict[str, torch.Tensor] | None) -> torch.Tensor:
    """(1, length, hidden): the input of the original's first layer, from its two streams, written as it writes them."""
    blank, table, mask = model.config.kimia_text_blank, model.model.embed_tokens.weight, torch.tensor(ids) == OFFSET
    audio = torch.tensor([i if i in STRUCTURE or i == OFFSET else blank for i in ids])
    text = torch.tensor([blank if i in STRUCTURE or i == OFFSET else i for i in ids])
    heard = torch.zeros(len(ids), model.config.kimia_adaptor_input_dim)
    if inputs:
        codes, valid = model.audio_tokenizer(inputs["code_features"], inputs["code_attention_mask"])
        audio[mask] = codes[valid] + OFFSET
        states = model.audio_tower(inputs["input_features"]).last_hidden_state
        counts = valid.sum(-1).tolist()
        heard[mask] = torch.cat([s[: 4 * n].reshape(n, -1) for s, n in zip(states, counts)])
    continuous = model.model.vq_adaptor(heard) * mask[:, None]
    fused = (table[audio] + continuous) * torch.sqrt(torch.tensor(2.0))
    return ((table[audio] * ~mask[:, None] + fused * mask[:, None]) + table[text])[None]


def plain(model: KimiAudioForCausalLM) -> Qwen2ForCausalLM:
    """transformers' own Qwen2 with the same weights."""
    kept = {k: v for k, v in model.config.to_dict().items() if not k.startswith("kimia") and k != "model_type"}
    qwen = Qwen2ForCausalLM(Qwen2Config(**kept)).eval()
    weights = model.state_dict()
    qwen.load_state_dict({name: weights[name] for name in qwen.state_dict()}, strict=True)
    return qwen


@torch.no_grad()
def by_hand(model: KimiAudioForCausalLM, ids: list[int], inputs: dict[str, torch.Tensor] | None) -> list[int]:
    """The original's decoding without a cache: a new token goes into the text stream, the audio stream holds blank."""
    qwen, embeds, said = plain(model), original(model, ids, inputs), []
    table, blank = model.model.embed_tokens.weight, model.config.kimia_text_blank
    for _ in range(STEPS["max_new_tokens"]):
        logits = qwen(inputs_embeds=embeds, use_cache=False).logits[0, -1]
        logits[model.config.kimia_text_eos] = -math.inf
        said.append(int(logits.argmax()))
        embeds = torch.cat([embeds, (table[blank] + table[said[-1]])[None, None]], 1)
    return said


@torch.no_grad()
def test_the_trunk_is_transformers_qwen2_bit_for_bit(model):
    inputs, tokens = sound(1.3)
    ids = torch.tensor([spoken(tokens)])
    embeds = model.embed(ids, model.fuse(*model.encode_audio(**inputs)))
    ours = model(inputs_embeds=embeds, output_hidden_states=True)
    theirs = plain(model)(inputs_embeds=embeds, output_hidden_states=True)
    assert torch.equal(ours.logits, theirs.logits)
    assert len(ours.hidden_states) == tiny_kimi.LAYERS + 1
    assert all(torch.equal(a, b) for a, b in zip(ours.hidden_states, theirs.hidden_states, strict=True))
    assert torch.equal(ours.logits, model(input_ids=ids, **inputs).logits)
    assert torch.equal(ours.logits, model.lm_head(ours.hidden_states[-1]))  # the text head on the trunk's last norm


@torch.no_grad()
@pytest.mark.parametrize("seconds", [0.05, 1.3, 2.0, 4.7])
def test_one_sequence_of_ids_makes_the_same_inputs_as_the_originals_two_streams(model, seconds):
    inputs, tokens = sound(seconds)
    assert tokens == math.ceil(seconds * 12.5)
    ids = spoken(tokens, text=(100, 44, 260))
    ours = model.embed(torch.tensor([ids]), model.fuse(*model.encode_audio(**inputs)))
    assert torch.allclose(ours, original(model, ids, inputs), atol=1e-5, rtol=0)
    written = [USER, 100, 44, END, ASSISTANT, 260, model.config.kimia_text_eos, END, USER, 33, END, ASSISTANT]
    assert torch.equal(model.embed(torch.tensor([written])), original(model, written, None))


def test_fusion_is_the_sum_times_the_root_of_two_in_the_models_own_precision():
    a, b = torch.tensor([[1.0, -3.0]]), torch.tensor([[0.5, 1.0]])
    assert torch.allclose(Fusion()(a, b), torch.tensor([[1.5 * math.sqrt(2), -2 * math.sqrt(2)]]))
    halves = Fusion()(a.bfloat16(), b.bfloat16())
    assert halves.tolist() == (torch.tensor([[1.5, -2.0]]) * 1.4140625).bfloat16().tolist()


@torch.no_grad()
def test_hooks_see_both_inputs_of_the_fusion_and_what_comes_out(model):
    inputs, tokens = sound(1.3)
    codes, continuous = model.encode_audio(**inputs)
    seen = []
    hook = model.model.fusion.register_forward_hook(lambda _module, args, output: seen.append((*args, output)))
    try:
        model(input_ids=torch.tensor([spoken(tokens)]), **inputs)
    finally:
        hook.remove()
    ((words, adapted, fused),) = seen
    assert torch.equal(words, model.model.embed_tokens(codes + OFFSET))
    assert torch.equal(adapted, model.model.vq_adaptor(continuous))
    assert torch.equal(fused, model.fuse(codes, continuous))
    assert fused.shape == (tokens, tiny_kimi.DIM)


@torch.no_grad()
def test_a_padded_batch_of_clips_and_text_is_each_row_alone(model):
    (one, n), (two, m) = sound(0.7), sound(4.7, seed=3)
    prompts = [spoken(n), [USER, 100, 44, END, ASSISTANT], spoken(m, text=(70, 71, 72))]
    rows = batch(prompts, [one, two], padding=model.config.pad_token_id)
    together = model(**rows, output_hidden_states=True)
    said = model.generate(**rows, **STEPS)[:, rows["input_ids"].shape[1] :]
    for row, (prompt, inputs) in enumerate(zip(prompts, (one, {}, two), strict=True)):
        ids = {"input_ids": torch.tensor([prompt]), "attention_mask": torch.ones(1, len(prompt), dtype=torch.long)}
        alone = model(**ids, **inputs, output_hidden_states=True)
        for a, b in zip(together.hidden_states, alone.hidden_states, strict=True):
            assert torch.allclose(a[row, -len(prompt) :], b[0], atol=2e-5, rtol=1e-5)
        assert said[row].tolist() == model.generate(**ids, **inputs, **STEPS)[0, len(prompt) :].tolist()
        assert said[row].tolist() == by_hand(model, prompt, inputs)
    assert len({tuple(reply.tolist()) for reply in said}) == 3  # the prompts matter, so the test can fail


@torch.no_grad()
def test_generating_from_embeddings_or_without_a_cache_says_the_same(model):
    inputs, tokens = sound(1.3)
    ids = torch.tensor([spoken(tokens)])
    mask = torch.ones_like(ids)
    said = model.generate(input_ids=ids, attention_mask=mask, **inputs, **STEPS)[0, ids.shape[1] :].tolist()
    embeds = model.embed(ids, model.fuse(*model.encode_audio(**inputs)))
    assert model.generate(inputs_embeds=embeds, attention_mask=mask, **STEPS)[0].tolist() == said
    slow = model.generate(input_ids=ids, attention_mask=mask, use_cache=False, **inputs, **STEPS)
    assert slow[0, ids.shape[1] :].tolist() == said


@torch.no_grad()
def test_while_decoding_no_sound_is_handed_on(model):
    inputs, tokens = sound(1.3)
    ids = torch.tensor([spoken(tokens)])
    given = []
    spy = model.register_forward_pre_hook(lambda _m, _args, kwargs: given.append(set(kwargs)), with_kwargs=True)
    try:
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, **STEPS)
    finally:
        spy.remove()
    assert set(inputs) <= given[0]
    assert not any(set(AUDIO_INPUT_NAMES) & step for step in given[1:])


@torch.no_grad()
def test_codes_found_before_do_what_the_frames_do(model):
    inputs, tokens = sound(4.7)
    codes, _ = model.encode_audio(**inputs)
    assert len(codes) == tokens
    assert len(set(codes.tolist())) > 3  # else any codes would do
    ids = torch.tensor([spoken(tokens)])
    del (without := dict(inputs))["code_features"]
    assert torch.equal(model(input_ids=ids, **without, codes=codes).logits, model(input_ids=ids, **inputs).logits)
    other = model(input_ids=ids, **without, codes=(codes + 1) % tiny_kimi.CODES).logits
    assert not torch.allclose(other, model(input_ids=ids, **inputs).logits, atol=1e-3)


def test_gradients_reach_the_tower_the_adaptor_and_the_trunk_but_not_the_codes():
    model = tiny_kimi.build()
    inputs, tokens = sound(1.3)
    ids = torch.tensor([[*spoken(tokens), 100, model.config.kimia_text_eos]])
    labels = torch.where(torch.arange(ids.shape[1]) >= ids.shape[1] - 2, ids, -100)
    graphs = []
    model.audio_tokenizer.conv1.register_forward_hook(lambda _module, _args, out: graphs.append(out.requires_grad))
    model(input_ids=ids, labels=labels, **inputs).loss.backward()
    assert graphs == [False]  # no memory is kept for what cannot learn
    moved = {name for name, p in model.named_parameters() if p.grad is not None and bool(p.grad.abs().sum() > 0)}
    for name in ("audio_tower.conv1.weight", "model.vq_adaptor.layers.0.weight", "model.layers.0.mlp.up_proj.weight"):
        assert name in moved
    assert not any(name.startswith("audio_tokenizer.") for name in moved)


@torch.no_grad()
def test_layers_that_speak_change_nothing_in_what_is_written(model):
    speaking = tiny_kimi.build(seed=7, speech=True)
    outcome = speaking.load_state_dict(model.state_dict(), strict=False)
    assert not outcome.unexpected_keys
    assert all("mimo" in name for name in outcome.missing_keys)
    ids = torch.tensor([[USER, 100, 44, END, ASSISTANT]])
    assert torch.equal(speaking(input_ids=ids).logits, model(input_ids=ids).logits)


@torch.no_grad()
def test_half_precision_hears_and_writes(model):
    half = tiny_kimi.build()
    half.model.bfloat16(), half.lm_head.bfloat16(), half.audio_tower.bfloat16()
    inputs, tokens = sound(1.3)
    ids = torch.tensor([spoken(tokens)])
    logits = half(input_ids=ids, **inputs).logits
    assert logits.dtype == torch.bfloat16
    cosine = torch.nn.functional.cosine_similarity(logits.float(), model(input_ids=ids, **inputs).logits, dim=-1)
    assert cosine.min() > 0.99
    assert half.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **inputs, **STEPS).shape[1] > ids.shape[1]


def test_the_same_seed_builds_the_same_model():
    one, two = tiny_kimi.build(3).state_dict(), tiny_kimi.build(3).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["lm_head.weight"], tiny_kimi.build(4).lm_head.weight)
    assert np.array_equal(tiny_kimi.wave(0.5, 2), tiny_kimi.wave(0.5, 2))
