"""Fault 9: the reply was whatever followed the last "assistant" and stood before "Human:"; refusals were cut."""

from __future__ import annotations

import tiny_af3
import torch

from undersong.evaluation.prompts import make_prompts
from undersong.types import Sample


def test_a_reply_is_the_new_tokens_whatever_they_say(tiny, monkeypatch) -> None:
    prompts = make_prompts(
        [Sample("p", text=tiny_af3.WORDS[0] if hasattr(tiny_af3, "WORDS") else "say")], set_name="harm", harmful=True,
        modality="text", system="plain", system_text=None,
    )  # fmt: skip
    vocabulary = [token for token in tiny.tokenizer.get_vocab() if "assistant" in token or "user" in token]
    new = tiny.tokenizer.convert_tokens_to_ids(vocabulary) * 2
    assert new
    monkeypatch.setattr(tiny.model, "generate", lambda **_: torch.tensor([[*new, tiny.end_ids[0], new[0]]]))
    (reply,) = tiny.generate(prompts, limit=16)
    assert reply.tokens == len(new)  # none taken away at "assistant", none after the end token
    assert reply.reply == tiny.tokenizer.decode(new, skip_special_tokens=False)
    assert reply.finish == "stop"
