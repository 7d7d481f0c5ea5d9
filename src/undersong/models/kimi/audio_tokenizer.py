"""The semantic audio tokenizer (the encoder of GLM-4-Voice's): log-mel frames to code ids.

Parameter names are the checkpoint's, without its `model.encoder.`.
"""

from __future__ import annotations

import math
import re
from re import Pattern
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import WhisperConfig, WhisperPreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from undersong.types import UndersongError

FRAMES_PER_STATE = 2  # mel frames to one encoder state: the stride of the second convolution
STATES_PER_TOKEN = 4  # encoder states per token, in both audio encoders
CHECKPOINT_PREFIX = r"^model\.encoder\."  # prefix of every name in the checkpoint


@strict
class CodesConfig(WhisperConfig):
    """Whisper's configuration with the tokenizer's own keys; the published `config.json` loads unchanged."""

    pooling_kernel_size: int = STATES_PER_TOKEN
    pooling_position: int = 16
    pooling_type: str = "avg"
    quantize_position: int = 16
    quantize_vocab_size: int = 16384
    quantize_causal_block_size: int = 200
    encoder_causal_convolution: bool = True


def valid_token_mask(mask: torch.Tensor) -> torch.Tensor:
    """(windows, mel frames) 0/1 -> (windows, tokens) bool: True for tokens with at least one valid frame."""
    return mask[:, ::FRAMES_PER_STATE][:, ::STATES_PER_TOKEN].bool()


class CausalConv1d(nn.Conv1d):
    """A causal convolution: all its padding is on the left."""

    def forward(self, signal: torch.Tensor) -> torch.Tensor:
        return super().forward(nn.functional.pad(signal, (self.kernel_size[0] - 1, 0)))


class CodesEncoder(WhisperPreTrainedModel):
    """Maps log-mel (windows, mels, frames) to code ids in [0, quantize_vocab_size).

    Raises UndersongError if the configuration asks for another kind of tokenizer (source: the published config).
    """

    config_class = CodesConfig
    main_input_name = "features"

    def __init__(self, config: CodesConfig) -> None:
        super().__init__(config)
        _check_config(config)
        dim, tokens = config.d_model, math.ceil(config.max_source_positions / config.pooling_kernel_size)
        self.conv1 = CausalConv1d(config.num_mel_bins, dim, 3)
        self.conv2 = CausalConv1d(dim, dim, 3, stride=FRAMES_PER_STATE)
        self.embed_positions = nn.Embedding(config.max_source_positions, dim)
        self.layers = nn.ModuleList(WhisperEncoderLayer(config) for _ in range(config.quantize_position))
        self.codebook = nn.Embedding(config.quantize_vocab_size, dim)
        self.embed_positions2 = nn.Embedding(tokens, dim)  # in the checkpoint, for speech generation; unused
        self.post_init()

    @property
    def unused_tensors(self) -> Pattern[str]:
        """Names that its checkpoint may hold too: the rest of Whisper, and the moving averages of its codebook."""
        return re.compile(
            rf"(model\.encoder\.)?(layers\.(?!({'|'.join(map(str, range(len(self.layers))))})\.)|layer_norm\.|"
            r"ema_count$|ema_weight$)|model\.decoder\.|proj_out\."
        )

    def token_states(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """States before quantization (windows, tokens, dim), and a mask of the valid ones (windows, tokens) bool.

        `features` is (windows, mels, frames), `mask` (windows, frames) 0/1. The function is differentiable. Frames
        after the valid ones change nothing in the valid tokens but the last one's share of padding.
        """
        positions = self.config.max_source_positions
        if features.shape[-1] > FRAMES_PER_STATE * positions:
            raise UndersongError(
                f"A window of {features.shape[-1]} mel frames is longer than the {FRAMES_PER_STATE * positions} "
                "the semantic tokenizer takes; cut the clip into windows (kimi_audio_inputs does)."
            )
        hidden = nn.functional.gelu(self.conv1(features))
        hidden = nn.functional.gelu(self.conv2(hidden)).transpose(1, 2)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        bias = self._attention_bias(mask[:, ::FRAMES_PER_STATE].bool(), hidden.dtype)
        for layer in self.layers:
            hidden = layer(hidden, bias)
        padding = -hidden.shape[1] % self.config.pooling_kernel_size
        padded = nn.functional.pad(hidden.transpose(1, 2), (0, padding))
        return nn.functional.avg_pool1d(padded, self.config.pooling_kernel_size).transpose(1, 2), valid_token_mask(mask)

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Code ids (windows, tokens) int64, and a mask of the valid ones; arguments as in `token_states`."""
        pooled, valid = self.token_states(features, mask)
        return self.nearest_codes(pooled), valid

    def nearest_codes(self, pooled: torch.Tensor) -> torch.Tensor:
        """(…, dim) -> (…) ids of the nearest codebook rows by squared distance, in float32."""
        rows = self.codebook.weight.float()
        # |x - c|^2 without |x|^2, which is the same for every row.
        distances = rows.square().sum(-1) - 2.0 * (pooled.float() @ rows.T)
        return distances.argmin(-1)

    def _attention_bias(self, valid: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(windows, 1, states, states) to add to attention: 0 for allowed pairs, the lowest number for others."""
        positions = torch.arange(valid.shape[1], device=valid.device)
        block = positions // self.config.quantize_causal_block_size
        allowed = ((positions[:, None] >= positions) | (block[:, None] == block)) & valid[:, None]
        bias = torch.zeros(allowed.shape, dtype=dtype, device=valid.device)
        return bias.masked_fill(~allowed, torch.finfo(dtype).min)[:, None]


def _check_config(config: Any) -> None:
    expected = {"pooling_type": "avg", "pooling_kernel_size": STATES_PER_TOKEN, "encoder_causal_convolution": True}
    expected["pooling_position"] = config.quantize_position
    for key, value in expected.items():
        if getattr(config, key) != value:
            raise UndersongError(
                f"The semantic tokenizer's config has {key}={getattr(config, key)!r}, where only {value!r} is known; "
                "give the folder of glm-4-voice-tokenizer."
            )
