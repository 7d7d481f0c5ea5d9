"""Replies and hidden states: transformers' own, one by one or batched, in the order of the prompts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import zoo
from tiny_af3 import LAYERS, native_inputs, spoken, typed

from undersong.models.audio_lm import AudioModel
from undersong.models.load import load_model

MIXED = [
    spoken(3),
    typed("paint the boat"),
    spoken(0),
    typed("wash"),
    spoken(4, None),
    typed("fold the red chair"),
    spoken(1),
]


def test_replies_are_those_of_the_model_itself(shared_tiny: AudioModel) -> None:
    asked = [spoken(i) for i in (3, 0, 4, 1)]
    replies = shared_tiny.generate(asked, 10)
    for prompt, reply in zip(asked, replies):
        inputs = native_inputs([prompt])
        with torch.inference_mode():
            whole = shared_tiny.model.generate(**inputs, max_new_tokens=10, do_sample=False, eos_token_id=2)
        said, end, _ = shared_tiny.tokenizer.decode(whole[0, inputs["input_ids"].shape[1] :]).partition("<im_end>")
        assert reply.reply.split() == said.split()
        assert (reply.tokens, reply.finish) == (len(said.split()), "stop" if end else "length")
    assert len({reply.reply for reply in replies}) == len(asked)  # else the order could not be told


@pytest.mark.parametrize("batch_size", [1, 3, 128])
def test_replies_do_not_depend_on_the_batch(shared_tiny: AudioModel, batch_size: int) -> None:
    alone = [shared_tiny.generate([prompt], 8)[0] for prompt in MIXED]
    assert shared_tiny.generate(MIXED, 8, batch_size) == alone
    assert [reply.prompt_id for reply in alone] == [prompt.sample.id for prompt in MIXED]
    assert [reply.modality for reply in alone] == [prompt.modality for prompt in MIXED]
    assert shared_tiny.generate([], 8) == []


def swap_with_end(model: AudioModel, word: str) -> None:
    """From now on the model ends its reply where it would have said `word`."""
    token = model.tokenizer.convert_tokens_to_ids(word)
    with torch.no_grad():
        model.base.lm_head.weight[[token, 2]] = model.base.lm_head.weight[[2, token]]


def test_a_reply_stops_at_the_end_token(tiny: AudioModel) -> None:
    whole = [(prompt, r.reply.split()) for prompt, r in zip(MIXED, tiny.generate(MIXED, 8)) if r.finish == "length"]
    word = next(w for _, said in whole for w in said[2:] if w not in said[:2] and any(w not in s for _, s in whole))
    swap_with_end(tiny, word)
    cut = tiny.generate([prompt for prompt, _ in whole], 8)
    for (_, said), reply in zip(whole, cut):
        kept = said[: said.index(word)] if word in said else said
        assert reply.reply.split() == kept
        assert reply.tokens == len(kept)  # the end token is not counted
        assert reply.finish == ("stop" if word in said else "length")
    assert {reply.finish for reply in cut} == {"stop", "length"}


def test_a_reply_may_be_empty(tiny: AudioModel) -> None:
    first = tiny.generate(MIXED[:1], 1)[0].reply
    swap_with_end(tiny, first)
    (reply,) = tiny.generate(MIXED[:1], 5)
    assert (reply.reply, reply.tokens, reply.finish) == ("", 0, "stop")


def test_settings_saved_with_a_checkpoint_do_not_change_decoding(tiny: AudioModel) -> None:
    before = tiny.generate(MIXED, 8)
    saved = tiny.model.generation_config
    saved.repetition_penalty, saved.num_beams, saved.do_sample, saved.temperature, saved.max_length = (
        5.0,
        3,
        True,
        0.7,
        4,
    )
    saved.eos_token_id = [5, 6, 7]
    assert tiny.generate(MIXED, 8) == before


def test_the_checkpoints_own_stops_end_a_reply(tiny_folder: Path) -> None:
    """The union of the turn's end, the tokenizer's eos and the generation config's list, without repeats."""
    file = tiny_folder / "generation_config.json"
    config = json.loads(file.read_text())
    assert load_model(str(tiny_folder)).end_ids == [2]
    file.write_text(json.dumps({**config, "eos_token_id": [7, 2, 9]}))
    assert load_model(str(tiny_folder)).end_ids == [2, 7, 9]
    config.pop("eos_token_id")
    file.write_text(json.dumps(config))
    assert load_model(str(tiny_folder)).end_ids[0] == 2


@pytest.mark.parametrize("family", ["audioflamingo3", "musicflamingo"])
def test_a_flamingos_turn_ends_with_its_own_token_whatever_the_eos_is(family: str, tmp_path: Path) -> None:
    folder = zoo.save(family, tmp_path)
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token": "<|endoftext|>"}))
    model = load_model(str(folder))
    end, eos = model.tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"])
    assert model.tokenizer.eos_token_id == eos
    assert model.reply_ids("some")[-1] == end
    assert set(model.end_ids) == {end, eos}


def test_hidden_states_are_those_of_the_model_itself(shared_tiny: AudioModel) -> None:
    asked = [spoken(i) for i in (3, 0, 4)]
    states = shared_tiny.hidden_states(asked)
    assert states.shape == (LAYERS + 1, 3, 32)
    assert states.dtype == np.float32
    with torch.inference_mode():
        out = shared_tiny.model(**native_inputs(asked), output_hidden_states=True)
    theirs = torch.stack([layer[:, -1] for layer in out.hidden_states])
    np.testing.assert_allclose(states[:-1], theirs[:-1], atol=1e-5)
    with torch.inference_mode():  # transformers' last one is after the final norm, ours before
        last = shared_tiny.decoder.norm(torch.from_numpy(states[-1]))
    torch.testing.assert_close(last, theirs[-1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_hidden_states_do_not_depend_on_the_batch(shared_tiny: AudioModel, batch_size: int) -> None:
    together = shared_tiny.hidden_states(MIXED)
    np.testing.assert_allclose(shared_tiny.hidden_states(MIXED, batch_size), together, atol=1e-5)
    np.testing.assert_allclose(shared_tiny.hidden_states(MIXED[::-1])[:, ::-1], together, atol=1e-5)
    assert np.ptp(together[-1], axis=0).max() > 0.1
    assert shared_tiny.hidden_states([]).shape == (LAYERS + 1, 0, 32)


def test_measuring_needs_no_eval_mode(tiny: AudioModel) -> None:
    """A model that a trainer left in training mode gives the same states and replies."""
    states, replies = tiny.hidden_states(MIXED), tiny.generate(MIXED, 4)
    for module in tiny.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    tiny.model.train()
    np.testing.assert_array_equal(tiny.hidden_states(MIXED), states)
    tiny.model.train()
    assert tiny.generate(MIXED, 4) == replies
