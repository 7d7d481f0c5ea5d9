"""A random-weight Kimi-Audio with 2-second windows in the layout of its release, and the tokenizer of a few ranks."""

from __future__ import annotations

import base64
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor

from undersong.models.kimi.audio_tokenizer import CodesConfig, CodesEncoder
from undersong.models.kimi.load import save_kimi
from undersong.models.kimi.network import KimiAudioConfig, KimiAudioForCausalLM
from undersong.models.kimi.processing import SPECIAL_TOKEN_COUNT, kimi_audio_inputs, kimi_tokenizer

RATE, WINDOW, MELS, DIM, LAYERS, EAR, CODES = 16_000, 2, 16, 32, 2, 16, 24
MERGES = ["th", "the", " the", "an", "and", " and", "in", "ing", "on", " on", "ou", "you", " you", "er", "re", "ho"]
MERGES += [
    "hou",
    "hous",
    "house",
    " t",
    " te",
    " tel",
    " tell",
    "  ",
    "   ",
    "\n\n",
    "é",
    "é ",
    "日",
    "日本",
    "'s",
    "12",
]
OFFSET = (
    256 + len(MERGES) + SPECIAL_TOKEN_COUNT
)  # the first audio code, as in the release right after the special tokens


def ranks() -> dict[bytes, int]:
    """Every byte, then merges that each join two tokens known before."""
    tokens = [bytes([i]) for i in range(256)]
    return {token: i for i, token in enumerate(tokens + [merge.encode() for merge in MERGES])}


def write_ranks(file: Path) -> Path:
    lines = (b"%s %d\n" % (base64.b64encode(token), rank) for token, rank in ranks().items())
    file.write_bytes(b"".join(lines))
    return file


FIRST = OFFSET - SPECIAL_TOKEN_COUNT  # special tokens have the same places as in the release, after fewer ranks
PUBLISHED = json.loads((Path(__file__).parents[1] / "models" / "data" / "kimi_config.json").read_text())
SHRUNK = {
    "vocab_size": OFFSET + CODES,
    "hidden_size": DIM,
    "intermediate_size": 2 * DIM,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_base_tokens": FIRST,
    "pad_token_id": OFFSET - 1,
    "bos_token_id": FIRST,
    "eos_token_ids": [FIRST + 1, FIRST + 2],
    "kimia_mimo_layers": 1,
    "kimia_mimo_transformer_from_layer_index": LAYERS - 1,
    "kimia_token_offset": OFFSET,
    "kimia_text_output_vocab": OFFSET,
    "kimia_audio_output_vocab": CODES,
    "kimia_adaptor_input_dim": 4 * EAR,
    "kimia_media_begin": FIRST + 18,
    "kimia_media_end": FIRST + 20,
}
# The release has these only in its tokenizer, and the network's config class the release's numbers.
OF_TOKENIZER = {"kimia_text_blank": FIRST + 23, "kimia_text_eos": FIRST + 24}


def published_config() -> dict[str, Any]:
    """The release's config.json with shrunk sizes."""
    return {**PUBLISHED, **SHRUNK, **OF_TOKENIZER}


def config() -> KimiAudioConfig:
    return KimiAudioConfig.from_dict({**published_config(), "initializer_range": 0.2, "torch_dtype": "float32"})


def whisper(**extra: object) -> dict[str, object]:
    shape = {"d_model": EAR, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 2 * EAR}
    return {**shape, "num_mel_bins": MELS, "max_source_positions": 50 * WINDOW, "init_std": 0.3, **extra}


def build(seed: int = 0, speech: bool = False, dropout: float = 0.0) -> KimiAudioForCausalLM:
    """Weights far larger than transformers' own beginning, so that different prompts get different replies."""
    torch.manual_seed(seed)
    codes = CodesConfig(**whisper(quantize_position=2, pooling_position=2, quantize_vocab_size=CODES))
    codes.quantize_causal_block_size = 12
    model = KimiAudioForCausalLM(config(), WhisperConfig(**whisper(dropout=dropout)), codes, speech).eval()
    with torch.no_grad():
        # The mean of other rows never has the largest logit, so replies are readable text, as a trained head's are.
        said = [*range(32, 127), *range(256, OFFSET - SPECIAL_TOKEN_COUNT), model.config.kimia_text_eos]
        unsaid = [i for i in range(model.config.vocab_size) if i not in set(said)]
        model.lm_head.weight[unsaid] = model.lm_head.weight[said].mean(0)
        model.audio_tokenizer.codebook.weight.copy_(_codebook(model.audio_tokenizer))
    model.generation_config.eos_token_id = model.config.kimia_text_eos
    return model


def wave(seconds: float, seed: int = 0) -> np.ndarray:
    """(samples,) float32: a tone of its own that rises, with some noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(RATE * seconds)) / RATE
    tone = 0.3 * np.sin(2 * np.pi * (200 + 130 * seed + 700 * time) * time)
    return (tone + 0.05 * rng.standard_normal(len(time))).astype(np.float32)


def sound(seconds: float, seed: int = 1) -> tuple[dict[str, torch.Tensor], int]:
    """The network's inputs for a `wave`, and its number of tokens in all."""
    inputs, tokens = kimi_audio_inputs(wave(seconds, seed), extractor())
    return inputs, sum(tokens)


def _codebook(ear: CodesEncoder) -> torch.Tensor:
    """(codes, dim): states of real sound, so that clips have several codes."""
    inputs, _ = sound(WINDOW, seed=5)
    states, _ = ear.token_states(inputs["code_features"], inputs["code_attention_mask"])
    return states[0, :CODES]


@cache
def extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE, hop_length=160, chunk_length=WINDOW)


def save(folder: Path, seed: int = 0, speech: bool = False, dropout: float = 0.0) -> Path:
    """The release's layout, the semantic tokenizer beside it."""
    save_kimi(build(seed, speech, dropout), folder, extractor())
    (folder / "config.json").write_text(json.dumps(published_config(), indent=1))
    write_ranks(folder / "tiktoken.model")
    return folder


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """From a folder that `save` wrote, or an empty one."""
    if not (folder / "tiktoken.model").exists():
        write_ranks(folder / "tiktoken.model")
    return kimi_tokenizer(folder)
