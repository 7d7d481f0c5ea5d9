"""Kimi-Audio's configuration and network: Qwen2 with an audio adaptor, a Whisper encoder and a semantic tokenizer.

Names and shapes are the release's, so its shards load unchanged.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Model, WhisperConfig
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.models.qwen2.modeling_qwen2 import Qwen2DecoderLayer, Qwen2RMSNorm
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from undersong.models.kimi.audio_tokenizer import STATES_PER_TOKEN, CodesConfig, CodesEncoder, valid_token_mask
from undersong.types import UndersongError


@strict
class KimiAudioConfig(Qwen2Config):
    """Qwen2's configuration with Kimi-Audio's additions; the release's flat `config.json` loads unchanged.

    Token ids below `kimia_token_offset` are text, the others audio codes, in one embedding table. The release keeps
    `text_blank` and `text_eos` only in its tokenizer, hence the numbers here (source: its list of special tokens).
    """

    model_type = "moonshot_kimia"

    kimia_mimo_layers: int = 6
    kimia_mimo_transformer_from_layer_index: int = 21
    kimia_mimo_audiodelaytokens: int = 6
    kimia_token_offset: int = 152064
    kimia_text_output_vocab: int = 152064
    kimia_audio_output_vocab: int = 16896
    kimia_adaptor_input_dim: int = 5120
    kimia_media_begin: int = 151661
    kimia_media_end: int = 151663
    kimia_text_blank: int = 151666
    kimia_text_eos: int = 151667
    use_whisper_feature: bool = True


AUDIO_MODULES = ("audio_tower", "audio_tokenizer")  # outside the release's shards of the language model
AUDIO_INPUT_NAMES = ("input_features", "code_features", "code_attention_mask", "codes")
# Of the layers that generate speech, which are not needed for text (4 GB at full size).
SPEECH_TENSORS = re.compile(r"(model\.)?mimo_(layers|norm)\.|mimo_output\.")


class VqAdaptor(nn.Module):
    """(tokens, 4 Whisper states) -> (tokens, hidden): the projector of the Whisper encoder."""

    def __init__(self, config: KimiAudioConfig) -> None:
        super().__init__()
        dim = config.hidden_size
        self.layers = nn.Sequential(
            nn.Linear(config.kimia_adaptor_input_dim, dim),
            nn.SiLU(),
            nn.Dropout(0.0),  # keeps the numbers in the release's names
            nn.Linear(dim, dim),
            nn.LayerNorm(dim, eps=config.rms_norm_eps),
        )

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.layers(states)


class Fusion(nn.Module):
    """Fuses code embeddings and Whisper states to one vector per token. A separate module, so that a hook sees its
    inputs.
    """

    def forward(self, codes_embedding: torch.Tensor, continuous: torch.Tensor) -> torch.Tensor:
        """(tokens, hidden) twice -> (tokens, hidden)."""
        # The root is rounded to the model's dtype, as in the original; in bfloat16 it is a different number.
        root = torch.tensor(2.0, dtype=continuous.dtype, device=continuous.device).sqrt()
        return (codes_embedding + continuous) * root


class KimiAudioModel(Qwen2Model):
    """transformers' Qwen2 trunk with its forward unchanged, the adaptor, and with `speech` the layers that generate
    speech.
    """

    config_class = KimiAudioConfig

    def __init__(self, config: KimiAudioConfig, speech: bool = False) -> None:
        super().__init__(config)
        self.vq_adaptor = VqAdaptor(config)
        self.fusion = Fusion()
        if speech:  # never run; only kept, so that their weights survive loading and saving
            self.mimo_layers = nn.ModuleList(Qwen2DecoderLayer(config, 0) for _ in range(config.kimia_mimo_layers))
            self.mimo_norm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_init()


class KimiAudioForCausalLM(Qwen2ForCausalLM):
    """Kimi-Audio with audio and text input and text output.

    `tower` and `codes` build its two audio encoders. Without them it takes only text and `inputs_embeds`, and its state
    dict is the release's (`load_kimi` adds the released encoders). `speech` keeps the layers that generate speech
    tokens.
    """

    config_class = KimiAudioConfig

    def __init__(
        self,
        config: KimiAudioConfig,
        tower: WhisperConfig | None = None,
        codes: CodesConfig | None = None,
        speech: bool = False,
    ) -> None:
        super(Qwen2ForCausalLM, self).__init__(config)
        self.model = KimiAudioModel(config, speech)
        self.vocab_size = config.vocab_size
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if speech:
            self.mimo_output = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.audio_tower: WhisperEncoder | None = None
        self.audio_tokenizer: CodesEncoder | None = None
        if tower is not None:
            self.set_tower(WhisperEncoder(tower))
        if codes is not None:
            self.set_tokenizer(CodesEncoder(codes))
        self.post_init()

    def set_tower(self, tower: WhisperEncoder) -> None:
        """Set the Whisper encoder. Raises UndersongError if its width is not the adaptor's."""
        token_dim, expected_dim = STATES_PER_TOKEN * tower.config.d_model, self.config.kimia_adaptor_input_dim
        if token_dim != expected_dim:
            raise UndersongError(
                f"The Whisper encoder gives {token_dim} numbers a token and Kimi-Audio's adaptor takes {expected_dim}; "
                "give the whisper-large-v3 folder of the same release."
            )
        self.audio_tower = tower

    def set_tokenizer(self, tokenizer: CodesEncoder) -> None:
        """Set the semantic tokenizer. Raises UndersongError if it has more codes than the embedding table."""
        code_count, code_rows = (
            tokenizer.config.quantize_vocab_size,
            self.config.vocab_size - self.config.kimia_token_offset,
        )
        if code_count > code_rows:
            raise UndersongError(
                f"The semantic tokenizer has {code_count} codes and Kimi-Audio's table room for {code_rows}; "
                "give the glm-4-voice-tokenizer this model was trained with."
            )
        self.audio_tokenizer = tokenizer

    def encode_audio(
        self,
        input_features: torch.Tensor,
        code_attention_mask: torch.Tensor,
        code_features: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode windows of audio to codes (tokens,) without offset, and continuous states (tokens, adaptor input).

        Tokens are packed window after window. There is no gradient through the codes.

        Args:
            input_features: (windows, mels, frames of a whole window), for the Whisper encoder.
            code_attention_mask: (windows, frames) 0/1, for the semantic tokenizer.
            code_features: (windows, mels, frames), for the semantic tokenizer.
            codes: (tokens,), instead of `code_features`.
        """
        tower, audio_tokenizer = self.audio_tower, self.audio_tokenizer
        if tower is None or (codes is None and audio_tokenizer is None):
            raise UndersongError("This Kimi-Audio has no audio encoders; load it with load_kimi.")
        valid = valid_token_mask(code_attention_mask).to(tower.device)
        states = tower(input_features.to(tower.device, tower.dtype)).last_hidden_state
        windows, tokens = valid.shape
        states = states[:, : STATES_PER_TOKEN * tokens]
        if states.shape[:2] != (windows, STATES_PER_TOKEN * tokens):
            raise UndersongError(
                f"The two audio encoders disagree: {tuple(states.shape[:2])} Whisper states for {tuple(valid.shape)} "
                "tokens (windows first); make both inputs with kimi_audio_inputs."
            )
        continuous = states.reshape(windows, tokens, -1)[valid]
        if codes is None:
            if audio_tokenizer is None or code_features is None:
                raise UndersongError("Audio has no code_features or codes; make the inputs with kimi_audio_inputs.")
            with torch.no_grad():
                code_windows, code_mask = audio_tokenizer(
                    code_features.to(audio_tokenizer.device, audio_tokenizer.dtype),
                    code_attention_mask.to(audio_tokenizer.device),
                )
            codes = code_windows[code_mask]
        if len(codes) != len(continuous):
            raise UndersongError(f"{len(codes)} codes for audio of {len(continuous)} tokens; compute them again.")
        return codes.to(continuous.device), continuous

    def fuse(self, codes: torch.Tensor, continuous: torch.Tensor) -> torch.Tensor:
        """(tokens,) codes without offset, (tokens, adaptor input) states -> (tokens, hidden), without the blank's
        embedding.
        """
        table = self.model.embed_tokens
        device, dtype = table.weight.device, table.weight.dtype
        code_embeddings = table(codes.to(device) + self.config.kimia_token_offset)
        return self.model.fusion(code_embeddings, self.model.vq_adaptor(continuous.to(device, dtype)))

    def embed(self, input_ids: torch.Tensor, audio_embeddings: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, length) ids -> (batch, length, hidden) for `inputs_embeds`.

        `audio_embeddings` (tokens, hidden), from `fuse`, fill the placeholders in order. Raises UndersongError if the
        numbers differ.
        """
        table = self.model.embed_tokens
        token_embeddings = table(input_ids)
        if audio_embeddings is not None:
            placeholder_mask = input_ids == self.config.kimia_token_offset
            if int(placeholder_mask.sum()) != len(audio_embeddings):
                raise UndersongError(
                    f"The prompts have {int(placeholder_mask.sum())} audio placeholders and the audio "
                    f"{len(audio_embeddings)} tokens; write one placeholder for every 1280 samples or part of them."
                )
            token_embeddings = token_embeddings.masked_scatter(
                placeholder_mask[..., None], audio_embeddings.to(token_embeddings.device, token_embeddings.dtype)
            )
        return token_embeddings + table(torch.tensor(self.config.kimia_text_blank, device=input_ids.device))

    def prepare_inputs_for_generation(
        self,
        input_ids: torch.Tensor,
        inputs_embeds: torch.Tensor | None = None,
        is_first_iteration: bool | None = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Qwen2's method, with audio only in the first step; generate() inspects the names `inputs_embeds` and
        `kwargs`.

        Args:
            input_ids: Token ids.
            inputs_embeds: Embeddings instead of ids.
            is_first_iteration: True for the step that holds the prompt.
            kwargs: Other inputs of the model.
        """
        prepared = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in AUDIO_INPUT_NAMES:
                prepared.pop(name, None)
        return prepared

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        code_features: torch.Tensor | None = None,
        code_attention_mask: torch.Tensor | None = None,
        codes: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Text logits (batch, length, vocabulary) of prompts with audio.

        Args:
            input_ids: (batch, length).
            input_features: As in `encode_audio`; clips in row order.
            code_features: As in `encode_audio`.
            code_attention_mask: As in `encode_audio`.
            codes: As in `encode_audio`.
            attention_mask: (batch, length); padding takes no position.
            position_ids: (batch, length).
            inputs_embeds: (batch, length, hidden), from `embed`, instead of ids and audio.
            labels: As in Qwen2.
            use_cache: As in Qwen2.
            logits_to_keep: As in Qwen2.
            kwargs: Other arguments of Qwen2.

        Raises:
            UndersongError: Placeholders and audio tokens differ in number.
        """
        if inputs_embeds is None and input_ids is not None:
            audio_embeddings = None
            if input_features is not None:
                if code_attention_mask is None:
                    raise UndersongError("Audio has no code_attention_mask; make the inputs with kimi_audio_inputs.")
                audio_embeddings = self.fuse(
                    *self.encode_audio(input_features, code_attention_mask, code_features, codes)
                )
            inputs_embeds, input_ids = self.embed(input_ids, audio_embeddings), None
        if (
            position_ids is None
            and inputs_embeds is not None
            and attention_mask is not None
            and attention_mask.ndim == 2
        ):
            # Padding takes no position, so that a row does not depend on its batch.
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)[:, -inputs_embeds.shape[1] :]
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            labels=labels,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
