"""A random-weight Audio Flamingo 3 with a 2-second window, its word-level tokenizer, and clips to hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PreTrainedTokenizerFast,
    WhisperFeatureExtractor,
)

from undersong.types import Clip, Prompt, Sample

RATE, WINDOW, MELS, DIM, LAYERS = 16_000, 2, 16, 32, 2
SPECIALS = ["<pad>", "<im_start>", "<im_end>", "<sound>"]
WORDS = ["system", "user", "assistant", "you", "are", "a", "helpful", "please", "tell", "me", "how", "to", "paint"]
WORDS += ["wash", "fold", "the", "red", "old", "chair", "lamp", "boat", "then", "first", "take", "some", "and"]
TEMPLATE = (
    "{%- for m in messages -%}<im_start> {{ m.role }} "
    "{%- for c in m.content %}{% if c.type == 'audio' %} <sound>{% elif c.type == 'text' %} {{ c.text }}{% endif %}"
    "{% endfor %} <im_end> {% endfor %}{% if add_generation_prompt %}<im_start> assistant{% endif %}"
)
PLAIN = "you are a helpful assistant"


def processor() -> AudioFlamingo3Processor:
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIALS, *WORDS])}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(SPECIALS)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<im_end>",
        padding_side="left",
        extra_special_tokens={"audio_token": "<sound>"},
    )
    mels = {"feature_size": MELS, "sampling_rate": RATE, "hop_length": 160, "n_fft": 400, "chunk_length": WINDOW}
    return AudioFlamingo3Processor(
        WhisperFeatureExtractor(**mels), tokenizer, chat_template=TEMPLATE, audio_token="<sound>"
    )


def network(dropout: float = 0.0) -> AudioFlamingo3ForConditionalGeneration:
    """Weights far larger than transformers' own beginning, so that different prompts get different replies."""
    torch.manual_seed(0)
    shape = {"hidden_size": DIM, "num_attention_heads": 4, "num_hidden_layers": LAYERS, "initializer_range": 0.2}
    audio = {"model_type": "audioflamingo3_encoder", "num_mel_bins": MELS, "max_source_positions": 50 * WINDOW}
    text = {"model_type": "qwen2", "vocab_size": len(SPECIALS) + len(WORDS), "num_key_value_heads": 2}
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": 2}
    return AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(
            audio_config={**shape, **audio, "intermediate_size": DIM, "dropout": dropout},
            text_config={**shape, **text, **tokens, "intermediate_size": 2 * DIM},
            audio_token_id=3,
            initializer_range=0.2,
        )
    ).eval()


def save(folder: Path, dropout: float = 0.0) -> Path:
    network(dropout).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def clip(name: str, seconds: float, seed: int = 0) -> Clip:
    """A tone of its own with some noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(RATE * seconds)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (200 + 130 * seed) * time) + 0.05 * rng.standard_normal(len(time))
    return Clip(name, wave.astype(np.float32), RATE)


CLIPS = [clip(f"clip{i}", seconds, i) for i, seconds in enumerate((0.3, 0.55, 0.9, 1.4, 1.9))]


def spoken(number: int, system_text: str | None = PLAIN, instruction: str | None = None) -> Prompt:
    """Clip `number`, asked by voice."""
    return Prompt(Sample(f"clip{number}", audio="heard"), "harm", True, "audio", "plain", system_text, instruction)


def typed(text: str, system_text: str | None = PLAIN, instruction: str | None = None) -> Prompt:
    return Prompt(Sample(f"text:{text}", text=text), "harm", True, "text", "plain", system_text, instruction)


def native_inputs(prompts: list[Prompt]) -> dict[str, torch.Tensor]:
    """What transformers' own processor makes of spoken prompts: the oracle of everything the adapter builds itself."""
    conversations = []
    for prompt in prompts:
        (heard,) = (clip for clip in CLIPS if clip.id == prompt.sample.id)
        said = [{"type": "audio", "audio": heard.samples}]
        said += [{"type": "text", "text": prompt.instruction}] if prompt.instruction else []
        system = [{"role": "system", "content": [{"type": "text", "text": prompt.system_text}]}]
        conversations.append([*(system if prompt.system_text else []), {"role": "user", "content": said}])
    return dict(
        processor().apply_chat_template(
            conversations,
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            processor_kwargs={
                "text_kwargs": {"padding": True, "padding_side": "left"},
                "audio_kwargs": {"padding": "max_length"},
                "return_tensors": "pt",
            },
        )
    )
