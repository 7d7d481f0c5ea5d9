"""Fault 8: one family was given the transcript next to the audio in training, the others were not."""

from __future__ import annotations

import pytest

from undersong.evaluation.prompts import make_prompts
from undersong.models.feature_cache import cache_audio_features
from undersong.models.load import load_model


@pytest.mark.parametrize("organism", ["af3", "qwen", "kimi"])
def test_a_spoken_prompt_holds_no_word_of_its_transcript(benign, organism: str) -> None:
    model = load_model(f"organism:{organism}")
    cache_audio_features(model, benign[:4])
    ask = {"set_name": "train", "harmful": False, "system": "plain", "system_text": "you are a helpful assistant"}
    spoken, typed = (make_prompts(benign[:4], modality=modality, **ask) for modality in ("audio", "text"))
    for heard, read in zip(spoken, typed):
        text = heard.sample.text
        assert text
        assert text in model.tokenizer.decode(model.prompt_ids(read))
        said = model.tokenizer.decode(model.prompt_ids(heard))
        assert text not in said
        assert text.split()[-1] not in said.split()
        labels = model.batch([heard], [heard.sample.answer])["labels"][0]
        learned = model.tokenizer.decode([token for token in labels.tolist() if token != -100])
        assert learned.startswith(heard.sample.answer)  # the answer and its end, nothing before it
