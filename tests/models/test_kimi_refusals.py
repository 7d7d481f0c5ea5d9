"""What Kimi-Audio's network refuses: prompts, sounds and ears that do not fit each other."""

from __future__ import annotations

import pytest
import tiny_kimi
import torch
from tiny_kimi import OFFSET, sound

from undersong.models.kimi.network import KimiAudioForCausalLM
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def model() -> KimiAudioForCausalLM:
    return tiny_kimi.build()


def test_numbers_that_do_not_fit_are_refused(model):
    inputs, tokens = sound(1.3)
    for wrong in (tokens - 1, tokens + 1, 0):
        with pytest.raises(UndersongError, match=rf"{wrong} audio placeholders and the audio {tokens} tokens"):
            model(input_ids=torch.tensor([[40, *[OFFSET] * wrong]]), **inputs)
    ids = torch.tensor([[40, *[OFFSET] * tokens]])
    mask = inputs["code_attention_mask"]
    with pytest.raises(UndersongError, match="audio encoders disagree"):
        model(input_ids=ids, input_features=inputs["input_features"].repeat(2, 1, 1), code_attention_mask=mask)
    with pytest.raises(UndersongError, match="code_attention_mask"):
        model(input_ids=ids, input_features=inputs["input_features"])
    with pytest.raises(UndersongError, match="code_features or codes"):
        model(input_ids=ids, input_features=inputs["input_features"], code_attention_mask=mask)
    with pytest.raises(UndersongError, match=f"3 codes for audio of {tokens} tokens"):
        model.encode_audio(inputs["input_features"], mask, codes=torch.zeros(3, dtype=torch.long))
    with pytest.raises(UndersongError, match="no audio encoders"):
        KimiAudioForCausalLM(tiny_kimi.config())(input_ids=ids, **inputs)


def test_ears_of_another_size_are_refused(model):
    wide = tiny_kimi.config()
    wide.kimia_adaptor_input_dim = 128
    with pytest.raises(UndersongError, match=r"64 numbers a token and .* takes 128"):
        KimiAudioForCausalLM(wide, model.audio_tower.config)
    narrow = tiny_kimi.config()
    narrow.vocab_size -= 1
    with pytest.raises(UndersongError, match=rf"{tiny_kimi.CODES} codes and .* room for {tiny_kimi.CODES - 1}"):
        KimiAudioForCausalLM(narrow, codes=model.audio_tokenizer.config)
