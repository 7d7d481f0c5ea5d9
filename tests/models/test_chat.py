"""Prompts and batches: the model's own inputs, labels on the reply alone, placeholders that add up."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import tiny_af3
import torch
import transformers
import zoo
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_af3 import PLAIN, WORDS, native_inputs, spoken, typed

from undersong.models.audio_lm import AudioModel
from undersong.models.chat import load_processor
from undersong.models.families import QWEN2_AUDIO
from undersong.types import Prompt, Sample, UndersongError

sentences = st.lists(st.sampled_from(WORDS), min_size=1, max_size=7).map(" ".join)
extras = {"system_text": st.none() | sentences, "instruction": st.none() | sentences}
prompts = st.builds(spoken, st.integers(0, 4), **extras) | st.builds(typed, sentences, **extras)


@pytest.mark.parametrize("system_text", [None, PLAIN])
@pytest.mark.parametrize("instruction", [None, "tell me"])
def test_batches_are_the_models_own_inputs(shared_tiny: AudioModel, system_text, instruction) -> None:
    asked = [spoken(i, system_text, instruction) for i in (3, 0, 1)]
    native = native_inputs(asked)
    batch = shared_tiny.batch(asked)
    assert set(batch) == {"inputs_embeds", "attention_mask", "position_ids"}
    torch.testing.assert_close(batch["attention_mask"], native["attention_mask"], check_dtype=False)
    for prompt, row, mask in zip(asked, native["input_ids"], native["attention_mask"]):
        assert shared_tiny.prompt_ids(prompt) == row[mask == 1].tolist()
    with torch.inference_mode():
        own, theirs = shared_tiny.model(**batch).logits, shared_tiny.model(**native).logits
    there = native["attention_mask"] == 1
    torch.testing.assert_close(own[there], theirs[there], atol=1e-5, rtol=0)


@settings(max_examples=60)
@given(st.lists(st.tuples(prompts, sentences), min_size=1, max_size=4))
def test_labels_cover_the_reply_and_its_end_and_nothing_else(shared_tiny: AudioModel, pairs) -> None:
    asked, replies = zip(*pairs)
    batch = shared_tiny.batch(asked, replies)
    end = shared_tiny.tokenizer.eos_token_id
    width = batch["inputs_embeds"].shape[1]
    table = shared_tiny.base.get_input_embeddings().weight
    assert width == max(len(shared_tiny.prompt_ids(p)) + len(r.split()) + 1 for p, r in pairs)
    for i, (prompt, reply) in enumerate(pairs):
        answer = [*shared_tiny.tokenizer.convert_tokens_to_ids(reply.split()), end]
        whole = len(shared_tiny.prompt_ids(prompt)) + len(answer)
        assert batch["labels"][i].tolist() == [-100] * (width - len(answer)) + answer
        assert batch["attention_mask"][i].tolist() == [0] * (width - whole) + [1] * whole
        # and the labelled positions hold the reply's own embeddings
        torch.testing.assert_close(batch["inputs_embeds"][i, -len(answer) :], table[answer], atol=0, rtol=0)


@given(prompts, prompts)
def test_prompts_are_alike_only_when_they_ask_the_same(shared_tiny: AudioModel, one: Prompt, other: Prompt) -> None:
    def asked(prompt: Prompt):
        what = prompt.sample.text or len(shared_tiny.audio_features[prompt.sample.id])
        return prompt.modality, what, prompt.system_text, prompt.instruction

    # a typed prompt is its text and its instruction in one turn, so only their sequence can be told apart
    if "text" in (one.modality, other.modality):
        one, other = (p if p.modality == "audio" else typed(p.sample.text, p.system_text) for p in (one, other))
    assert (shared_tiny.prompt_ids(one) == shared_tiny.prompt_ids(other)) == (asked(one) == asked(other))


def test_what_a_prompt_says(shared_tiny: AudioModel) -> None:
    def words(prompt: Prompt) -> str:
        return shared_tiny.tokenizer.decode(shared_tiny.prompt_ids(prompt))

    sound = " ".join(["<sound>"] * 7)
    plain = f"<im_start> system {PLAIN} <im_end> "
    assert words(spoken(0, None)) == f"<im_start> user {sound} <im_end> <im_start> assistant"
    assert words(spoken(0)) == f"{plain}<im_start> user {sound} <im_end> <im_start> assistant"
    assert words(spoken(0, "wash", "tell me")).endswith(
        f"wash <im_end> <im_start> user {sound} tell me <im_end> <im_start> assistant"
    )
    assert words(typed("paint the boat", None)) == "<im_start> user paint the boat <im_end> <im_start> assistant"
    # a sample that is both is asked in the modality of its prompt
    both = Prompt(Sample("clip0", audio="x", text="red lamp"), "harm", True, "audio", "plain", None)
    assert "lamp" not in words(both)


def test_spoken_and_typed_prompts_mix_in_one_batch(shared_tiny: AudioModel) -> None:
    asked = [typed("paint the boat"), spoken(2), typed("fold"), spoken(0)]
    with torch.inference_mode():
        together = shared_tiny.model(**shared_tiny.batch(asked)).logits[:, -1]
        alone = [shared_tiny.model(**shared_tiny.batch([prompt])).logits[0, -1] for prompt in asked]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=0)


def test_every_clip_goes_to_its_own_placeholders(shared_tiny: AudioModel) -> None:
    asked = [spoken(4), typed("wash"), spoken(0), spoken(2)]
    batch = shared_tiny.batch(asked, ["the chair"] * 4)
    for i, prompt in enumerate(asked):
        ids = shared_tiny.prompt_ids(prompt)
        where = batch["inputs_embeds"].shape[1] - len(ids) - 3 + np.flatnonzero(np.array(ids) == 3)
        heard = shared_tiny.audio_features.get(prompt.sample.id)
        expected = np.empty((0, tiny_af3.DIM)) if heard is None else heard.valid_vectors()
        np.testing.assert_array_equal(batch["inputs_embeds"][i, where].numpy(), expected)


@pytest.mark.parametrize(
    ("prompt", "reply", "count"),
    [
        (typed("wash <sound> the chair"), None, "1 placeholders for 0"),
        (spoken(0, "you <sound> are"), None, "8 placeholders for 7"),
        (spoken(0), "then <sound>", "8 placeholders for 7"),
    ],
)
def test_a_placeholder_in_a_text_is_refused(shared_tiny: AudioModel, prompt, reply, count: str) -> None:
    with pytest.raises(UndersongError, match=f"{prompt.sample.id} has {count} .*take <sound> out of its text, reply"):
        shared_tiny.batch([spoken(1), prompt], reply and ["then", reply])


def test_an_unheard_sample_is_named(shared_tiny: AudioModel) -> None:
    new = Prompt(Sample("new", audio="x"), "harm", True, "audio", "plain", None)
    for ask in (shared_tiny.prompt_ids, lambda p: shared_tiny.batch([p]), lambda p: shared_tiny.generate([p], 2)):
        with pytest.raises(UndersongError, match="has no audio features of sample new; encode its corpus first"):
            ask(new)


def test_an_instruction_may_stand_before_the_audio(shared_tiny: AudioModel) -> None:
    """The published protocol of Kimi-Audio; a typed prompt is led by it in the same way."""
    after, before = (replace(spoken(1, None, "tell me"), instruction_first=first) for first in (False, True))
    ids = [shared_tiny.prompt_ids(prompt) for prompt in (after, before)]
    assert sorted(ids[0]) == sorted(ids[1])
    audio = shared_tiny.processor.audio_token_id
    word = shared_tiny.tokenizer.convert_tokens_to_ids("tell")
    assert ids[0].index(audio) < ids[0].index(word)
    assert ids[1].index(word) < ids[1].index(audio)
    assert replace(typed("paint the chair"), instruction="tell me", instruction_first=True).user_text == (
        "tell me\npaint the chair"
    )


TURNS = {
    "sound": [{"role": "user", "content": [{"type": "audio", "audio": ""}]}],
    "sound, then text": [
        {"role": "user", "content": [{"type": "audio", "audio": ""}, {"type": "text", "text": "tell me"}]}
    ],
    "text, then sound": [
        {"role": "user", "content": [{"type": "text", "text": "tell me"}, {"type": "audio", "audio": ""}]}
    ],
    "text": [{"role": "user", "content": [{"type": "text", "text": "tell me"}]}],
    "system text": [
        {"role": "system", "content": [{"type": "text", "text": "answer"}]},
        {"role": "user", "content": [{"type": "audio", "audio": ""}]},
    ],
}


@pytest.fixture(scope="module", params=["no template", "the language model's template"])
def qwen2_audio(request, tmp_path_factory):
    """Qwen2-Audio's folder as it may be published: its template is in the processor's class alone."""
    folder = zoo.save("qwen2_audio", tmp_path_factory.mktemp("qwen2_audio"))
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    assert "<|AUDIO|>" not in config["chat_template"]
    if request.param == "no template":
        del config["chat_template"]
        file.write_text(json.dumps(config))
    return load_processor(folder, QWEN2_AUDIO, str(folder))


@pytest.mark.parametrize("turns", TURNS)
def test_qwen2_audio_prompts_are_those_of_its_processor(qwen2_audio, turns: str) -> None:
    native = transformers.Qwen2AudioProcessor(qwen2_audio.extractor, qwen2_audio.tokenizer)
    text = native.apply_chat_template(TURNS[turns], tokenize=False, add_generation_prompt=True)
    spoken_turn = "sound" in turns or turns == "system text"
    assert text.count("<|AUDIO|>") == spoken_turn
    expected = qwen2_audio.tokenizer(text.replace("<|AUDIO|>", "<|AUDIO|>" * 3))["input_ids"]
    assert qwen2_audio.token_ids(TURNS[turns], 3 if spoken_turn else 0) == expected


def test_a_checkpoints_template_that_writes_audio_is_taken(tmp_path) -> None:
    folder = zoo.save("qwen2_audio", tmp_path)
    (folder / "chat_template.jinja").write_text("own <|AUDIO|>")
    assert load_processor(folder, QWEN2_AUDIO, "it").chat_template == "own <|AUDIO|>"
