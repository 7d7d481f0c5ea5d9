"""Mini's network: transformers' Audio Flamingo 3 (AF3) with two modules replaced.

`MiniAudioEncoder` computes what AF3's encoder computes, but only on the frames of the clip instead of a whole window.
`CtcProjector` replaces the plain two-layer projector if the config says so. A small decoder cannot learn to understand
arbitrary vectors in an hour of one core, but it can read its own token embeddings (docs/results/mini.md has the
measurements).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from torch.nn.functional import gelu
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3Encoder,
    AudioFlamingo3ForConditionalGeneration,
    AutoConfig,
)
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.audioflamingo3.modeling_audioflamingo3 import AudioFlamingo3MultiModalProjector

CTC: Final = "ctc"
AF3: Final = "af3"
CONTEXT_FRAMES = 4  # frames after a clip's last that its states depend on, through two convolutions of width 3
SILENCE_THRESHOLD = 0.25  # share of a token embedding's mean length; a shorter frame is silent


@strict
class MiniConfig(AudioFlamingo3Config):
    """AF3's config with the kind of projector: `ctc` (`CtcProjector`, with `heard_tokens` rows) or `af3` (AF3's own).

    The top `learned_layers` of the audio encoder are not the base's.
    """

    model_type = "undersong_mini"

    projector: str = CTC
    heard_tokens: int = 1
    learned_layers: int = 1


AutoConfig.register(MiniConfig.model_type, MiniConfig, exist_ok=True)  # AutoTokenizer asks for it, and warns without


class MiniAudioEncoder(AudioFlamingo3Encoder):
    """AF3's audio encoder over the frames of the longest clip of a batch: the same numbers, at the cost of the clip.

    AF3's masks the padding but computes it. `forward_base_layers` and `forward_learned_layers` are the two parts, so
    that states below the learned layers can be cached.
    """

    num_learned_layers: int = 1

    def forward(
        self, input_features: torch.Tensor, input_features_mask: torch.Tensor, **_: Any
    ) -> BaseModelOutputWithPooling:
        """`input_features` (batch, mels, width) and mask (batch, width) -> states (batch, positions // 2, dim)."""
        states, positions = self.forward_base_layers(input_features, input_features_mask.sum(-1))
        return BaseModelOutputWithPooling(last_hidden_state=self.forward_learned_layers(states, positions))

    def forward_base_layers(self, features: torch.Tensor, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (batch, mels, width), valid frames (batch,) -> inputs of the learned layers (batch, positions, dim).

        Also returns the number of valid positions of each row.
        """
        width = min(features.shape[-1], int(frames.max()) + CONTEXT_FRAMES)
        width -= width % 2 if width < features.shape[-1] else 0
        states = gelu(self.conv1(features[..., :width]))
        states = gelu(self.conv2(states)).permute(0, 2, 1)
        states = states + self.embed_positions.weight[: states.shape[1]]
        positions = (frames - 1) // 2 + 1
        mask = self._attention_mask(states, positions)
        for layer in self.layers[: -self.num_learned_layers]:
            states = layer(states, mask)
        return states, positions

    def forward_learned_layers(self, states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """(batch, positions, dim) -> (batch, positions // 2, dim): the learned layers, pooling by two, the norm."""
        mask = self._attention_mask(states, positions)
        for layer in self.layers[-self.num_learned_layers :]:
            states = layer(states, mask)
        pooled: torch.Tensor = self.avg_pooler(states.permute(0, 2, 1)).permute(0, 2, 1)
        normed: torch.Tensor = self.layer_norm(pooled)
        return normed

    def _attention_mask(self, states: torch.Tensor, positions: torch.Tensor) -> Any:
        valid = torch.arange(states.shape[1], device=states.device) < positions[:, None]
        return create_bidirectional_mask(config=self.config, inputs_embeds=states, attention_mask=valid)


class CtcProjector(AudioFlamingo3MultiModalProjector):
    """AF3's projector, followed by a posterior over tokens and a blank, whose mean embedding goes to the decoder.

    The plain projector's output p is compared with the decoder's embedding e of every token of the training speech
    (`table` (tokens, dim), of the ids `heard`). Log-odds are `sharpness` * (2 p.e - e.e), plus a bias for the blank.
    The decoder gets the posterior mean of the table. A blank counts as the zero vector, which the decoder's norms make
    nearly nothing. The table is the decoder's own and is not trained.
    """

    table: torch.Tensor
    heard: torch.Tensor

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        dim = config.text_config.hidden_size
        self.blank = nn.Parameter(torch.zeros(dim))
        self.blank_bias = nn.Parameter(torch.zeros(1))
        self.log_sharpness = nn.Parameter(torch.zeros(1))
        self.register_buffer("table", torch.zeros(config.heard_tokens, dim))
        self.register_buffer("heard", torch.zeros(config.heard_tokens, dtype=torch.long))

    def token_logits(self, states: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """States (..., width) -> logits (..., 1 + tokens) float32; [0] is the blank. `rows` selects table rows."""
        projected = super().forward(states).float()
        table = self.table if rows is None else self.table[rows]
        sharpness, blank = self.log_sharpness.float().exp(), self.blank.float()
        token_scores = sharpness * _scaled_similarity(projected, table.float())
        return torch.cat(
            [sharpness * _scaled_similarity(projected, blank[None]) + self.blank_bias.float(), token_scores], -1
        )

    def forward(self, audio_features: torch.Tensor) -> torch.Tensor:
        """States (..., width) -> decoder inputs (..., dim), in their dtype."""
        probabilities = self.token_logits(audio_features).softmax(-1)[..., 1:]
        mean: torch.Tensor = probabilities @ self.table.float()
        return mean.to(audio_features.dtype)

    def is_silent(self, vectors: torch.Tensor) -> torch.Tensor:
        """Mask of its output vectors (..., dim) that are silent: far more blank than token."""
        return vectors.float().norm(dim=-1) < SILENCE_THRESHOLD * self.table.float().norm(dim=-1).mean()


def _scaled_similarity(projected: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """(..., dim), (rows, dim) -> (..., rows): 2 p.e - e.e, without copying the rows."""
    return 2 * (projected @ table.T) - torch.linalg.vector_norm(table, dim=-1).square()


class MiniForConditionalGeneration(AudioFlamingo3ForConditionalGeneration):
    """AF3 with Mini's audio encoder, the config's projector, and one matrix for token embeddings and head."""

    config: Any
    config_class = MiniConfig
    _tied_weights_keys: Any = {"lm_head.weight": "model.language_model.embed_tokens.weight"}  # noqa: RUF012

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.audio_tower = MiniAudioEncoder(config.audio_config)
        self.model.audio_tower.num_learned_layers = config.learned_layers
        if config.projector == CTC:
            self.model.multi_modal_projector = CtcProjector(config)
        elif config.projector != AF3:
            raise ValueError(f"there is no projector {config.projector!r}; it is {CTC} or {AF3}")
        self.post_init()


def silent_frames(model: Any, vectors: torch.Tensor) -> torch.Tensor:
    """Mask (frames,) bool of the audio vectors (frames, dim) that are silent; all False for AF3's own projector."""
    projector = model.model.multi_modal_projector
    if isinstance(projector, CtcProjector):
        return projector.is_silent(vectors.to(projector.table.device))
    return torch.zeros(len(vectors), dtype=torch.bool)
