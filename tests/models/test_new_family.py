"""Adding a family is one spec: the page that says so is run, on a tiny instance of one that is none of the eight."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import transformers
import zoo
from zoo_text import tokenizer, whisper

from undersong.models import families
from undersong.models.doctor import diagnose_model
from undersong.models.families import Family
from undersong.models.load import load_model
from undersong.types import Clip, UndersongError

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "add-a-model.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GLM-ASR."""
    folder = tmp_path_factory.mktemp("glm")
    words = tokenizer(["<|end|>", "<|user|>", "<|assistant|>", "<|pad|>"], "<|end|>", "<|end|>")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.2}
    audio = {"model_type": "glmasr_encoder", "num_mel_bins": 16, "intermediate_size": 128}
    text = {"model_type": "llama", "vocab_size": len(words), "intermediate_size": 64, "num_key_value_heads": 2}
    torch.manual_seed(0)
    transformers.GlmAsrForConditionalGeneration(
        transformers.GlmAsrConfig(
            audio_config={**shape, **audio, "max_position_embeddings": 100},
            text_config={**shape, **text, "pad_token_id": 0, "eos_token_id": 0, "bos_token_id": None},
            audio_token_id=3,
        )
    ).save_pretrained(folder)
    words.save_pretrained(folder)
    whisper().save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}<|{{ m.role }}|> {% for c in m.content %}{% if c.type == 'audio' %}<|pad|>{% else %}"
        "{{ c.text }}{% endif %}{% endfor %} {% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    return folder


@pytest.fixture
def glm(monkeypatch: pytest.MonkeyPatch) -> Family:
    """The spec as the page has it, in the list."""
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    written: dict[str, Family] = {}
    exec(block, written)
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, written["GLM_ASR"]))
    return written["GLM_ASR"]


def test_without_its_spec_the_families_are_listed(folder: Path) -> None:
    with pytest.raises(UndersongError, match=r"family 'glmasr', which has no spec.*Audio Flamingo 3, Kimi-Audio"):
        load_model(str(folder))


def test_the_doctor_is_content_with_the_spec_of_the_page(folder: Path, glm: Family) -> None:
    checks = list(diagnose_model(str(folder)))
    assert [check.name for check in checks if check.passed is False] == []
    assert len(checks) == 11
    assert "GLM-ASR" in checks[0].detail


def test_it_hears_what_transformers_hears(folder: Path, glm: Family) -> None:
    model = load_model(str(folder))
    clips = [Clip(str(n), zoo.samples(n, 1), 16_000) for n in (1100, 9_000, 32_000, 45_000)]
    extractor = model.processor.extractor
    for clip, heard in zip(clips, model.encode_audio(clips)):
        windows = [clip.samples[i : i + 32_000] for i in range(0, len(clip.samples), 32_000)]
        made = extractor(
            windows, sampling_rate=16_000, padding="max_length", return_attention_mask=True, return_tensors="pt"
        )
        with torch.no_grad():
            native = model.base.get_audio_features(made["input_features"], made["attention_mask"]).pooler_output
        torch.testing.assert_close(heard.vectors, native, atol=1e-5, rtol=0)
