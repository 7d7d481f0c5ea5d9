"""A random-weight Audio Flamingo 3 with a 2-second window, its tokenizer of 30 words, and clips to hear."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from undersong.models.adapter import AudioModel
from undersong.types import Clip, Prompt, Sample

RATE, WINDOW, MELS, DIM, LAYERS = 16_000, 2, 16, 32, 2
SPECIALS = ("<pad>", "<im_start>", "<im_end>", "<sound>")
WORDS = (
    "system user assistant you are a helpful please tell me how to paint wash fold the red old chair lamp boat then "
    "first take some and it"
).split()
TEMPLATE = (
    "{%- for m in messages -%}<im_start> {{ m.role }} "
    "{%- for c in m.content %}{% if c.type == 'audio' %} <sound>{% elif c.type == 'text' %} {{ c.text }}{% endif %}"
    "{% endfor %} <im_end> {% endfor %}{% if add_generation_prompt %}<im_start> assistant{% endif %}"
)
SECONDS = (0.3, 0.55, 0.9, 1.4, 1.9)


def processor():
    """Word-level tokenizer, Whisper's log-mel features, one chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AudioFlamingo3Processor, PreTrainedTokenizerFast, WhisperFeatureExtractor

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIALS, *WORDS))}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(SPECIALS))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<im_end>",
        padding_side="left",
        extra_special_tokens={"audio_token": "<sound>"},
    )
    extractor = WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=160, n_fft=400, chunk_length=WINDOW
    )
    return AudioFlamingo3Processor(extractor, tokenizer, chat_template=TEMPLATE, audio_token="<sound>")


def build(dropout: float = 0.0, seed: int = 0):
    """Fresh weights, larger than transformers' own initialisation so that different prompts get different replies."""
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    torch.manual_seed(seed)
    audio = {
        "model_type": "audioflamingo3_encoder",
        "num_mel_bins": MELS,
        "hidden_size": DIM,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": DIM,
        "max_source_positions": 50 * WINDOW,
        "dropout": dropout,
        "initializer_range": 0.2,
    }
    text = {
        "model_type": "qwen2",
        "vocab_size": len(SPECIALS) + len(WORDS),
        "hidden_size": DIM,
        "intermediate_size": 2 * DIM,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 2,
        "bos_token_id": None,
        "initializer_range": 0.2,
    }
    return AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(audio_config=audio, text_config=text, audio_token_id=3, initializer_range=0.2)
    ).eval()


def save(folder: Path, dropout: float = 0.0) -> Path:
    build(dropout).save_pretrained(folder)
    processor().save_pretrained(folder)
    return folder


def clip(name: str, seconds: float, seed: int = 0) -> Clip:
    """A tone of its own with some noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(RATE * seconds)) / RATE
    wave = 0.3 * np.sin(2 * np.pi * (200 + 130 * seed) * time) + 0.05 * rng.standard_normal(len(time))
    return Clip(name, wave.astype(np.float32), RATE)


CLIPS = tuple(clip(f"clip{i}", seconds, i) for i, seconds in enumerate(SECONDS))


def sample(number: int, text: str = "please tell me how to paint the chair", **more) -> Sample:
    """Spoken (clip `number`) and written."""
    return Sample(f"clip{number}", audio="in memory", text=text, **more)


def prompt(number: int, modality: str = "audio", system_text: str | None = "you are a helpful assistant", **more):
    more.setdefault("system", "plain")
    instruction = more.pop("instruction", None)
    return Prompt(
        sample(number, **more.pop("sample", {})), "set", True, modality, more["system"], system_text, instruction
    )


def fill_ears(model: AudioModel) -> None:
    model.heard = {c.id: vectors for c, vectors in zip(CLIPS, model.embed(CLIPS))}
