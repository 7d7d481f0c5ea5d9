"""Published configs with widths shrunk, for the families of which a copy of the published file was to be had.

`SHRUNK` lists, by path in the file, everything that a tiny instance changes. tests/models/data/README.md says where
each file is from. Knows no network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from zoo_text import MELS, WINDOW

DATA = Path(__file__).parents[1] / "models" / "data"
FILES = {"voxtral": "voxtral/config_of_mlx_8bit.json", "qwen3_omni_moe": "qwen3_omni/config_printed.json"}
CONVERTED = {"voxtral": ("quantization", "quantization_config")}  # what a conversion has added to the published file
DIM, LAYERS, HEADS, KEY_HEADS, HEAD_DIM = 32, 2, 4, 2, 8
POSITIONS = 50 * WINDOW  # tower positions of a window
_DECODER = {"hidden_size": DIM, "intermediate_size": 2 * DIM, "num_hidden_layers": LAYERS, "head_dim": HEAD_DIM}
_DECODER |= {"num_attention_heads": HEADS, "num_key_value_heads": KEY_HEADS}
_THINKER, _TEXT = "thinker_config", "thinker_config.text_config"
SHRUNK: dict[str, dict[str, Any]] = {
    "voxtral": {
        "hidden_size": DIM,
        "audio_config.head_dim": HEAD_DIM,
        "audio_config.hidden_size": DIM,
        "audio_config.intermediate_size": 4 * DIM,
        "audio_config.max_source_positions": POSITIONS,
        "audio_config.num_attention_heads": HEADS,
        "audio_config.num_hidden_layers": LAYERS,
        "audio_config.num_key_value_heads": HEADS,
        "audio_config.num_mel_bins": MELS,
        **{f"text_config.{name}": size for name, size in _DECODER.items()},
    },
    "qwen3_omni_moe": {
        "thinker_config.audio_config.d_model": DIM,
        "thinker_config.audio_config.downsample_hidden_size": 16,
        "thinker_config.audio_config.encoder_attention_heads": HEADS,
        "thinker_config.audio_config.encoder_ffn_dim": DIM,
        "thinker_config.audio_config.encoder_layers": LAYERS,
        "thinker_config.audio_config.num_mel_bins": MELS,
        "thinker_config.audio_config.output_dim": DIM,
        **{f"{_TEXT}.{name}": size for name, size in _DECODER.items()},
        f"{_TEXT}.moe_intermediate_size": DIM,
        f"{_TEXT}.num_experts": 4,
        f"{_TEXT}.num_experts_per_tok": 2,
        f"{_TEXT}.rope_parameters.mrope_section": [2, 1, 1],  # sums to half a head
        "thinker_config.vision_config.deepstack_visual_indexes": [0],
        "thinker_config.vision_config.depth": 1,
        "thinker_config.vision_config.hidden_size": DIM,
        "thinker_config.vision_config.intermediate_size": DIM,
        "thinker_config.vision_config.num_heads": 2,
        "thinker_config.vision_config.num_position_embeddings": 16,
        "thinker_config.vision_config.out_hidden_size": DIM,
    },
}
# Sizes and ids that follow from the tiny vocabulary: path -> token, None for the number of tokens.
OF_VOCABULARY: dict[str, dict[str, str | None]] = {
    "voxtral": {"vocab_size": None, "text_config.vocab_size": None, "audio_token_id": "[AUDIO]"},
    "qwen3_omni_moe": {
        f"{_TEXT}.vocab_size": None,
        f"{_THINKER}.audio_token_id": "<|audio_pad|>",
        f"{_THINKER}.audio_start_token_id": "<|audio_start|>",
        f"{_THINKER}.audio_end_token_id": "<|audio_end|>",
        f"{_THINKER}.image_token_id": "<|image_pad|>",
        f"{_THINKER}.video_token_id": "<|video_pad|>",
        f"{_THINKER}.vision_start_token_id": "<|vision_start|>",
        f"{_THINKER}.vision_end_token_id": "<|vision_end|>",
    },
}
DROPOUT = {"voxtral": "audio_config.dropout", "qwen3_omni_moe": "thinker_config.audio_config.dropout"}


def published(family: str) -> dict[str, Any]:
    """The published config, without what a conversion has added."""
    config = json.loads((DATA / FILES[family]).read_text())
    return {name: value for name, value in config.items() if name not in CONVERTED.get(family, ())}


def config(family: str, ids: Mapping[str, int], dropout: float) -> dict[str, Any]:
    """The published config with shrunk sizes, and the dropout if there is any."""
    made = deepcopy(published(family))
    changes = dict(SHRUNK[family])
    changes |= {path: len(ids) if token is None else ids[token] for path, token in OF_VOCABULARY[family].items()}
    if dropout:
        changes[DROPOUT[family]] = dropout
    for path, value in changes.items():
        *parents, name = path.split(".")
        inner = made
        for parent in parents:
            inner = inner[parent]
        if name not in inner:
            raise KeyError(f"the published config of {family} has no {path}")
        inner[name] = value
    return made


def with_initializer_range(config: Mapping[str, Any], value: float) -> dict[str, Any]:
    """The config with this `initializer_range` in all its parts, for random weights; not to be saved."""
    made = {name: with_initializer_range(v, value) if isinstance(v, dict) else v for name, v in config.items()}
    has_weights = {"initializer_range", "hidden_size", "d_model"} & set(made)
    return made | ({"initializer_range": value} if has_weights else {})
