"""The configuration of Kimi-Audio's language model, as the release writes it; knows nothing of its two encoders."""

from __future__ import annotations

from huggingface_hub.dataclasses import strict
from transformers import Qwen2Config


@strict
class KimiAudioConfig(Qwen2Config):
    """Qwen2's configuration and what Kimi-Audio adds to it; the release's flat `config.json` loads as it is.

    Token ids below `kimia_token_offset` are text, those from it on are audio codes, in one embedding table. The release
    keeps `text_blank` and `text_eos` in its tokenizer only, hence the numbers here (source: its special-token list).
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
