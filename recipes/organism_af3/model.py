"""The organism's shape: a tiny `AudioFlamingo3ForConditionalGeneration` with its tokenizer and processor.

Knows the transformers classes; does not know the world's splits or how it is trained.
"""

from __future__ import annotations

from speech import MELS, RATE, WINDOW_SECONDS
from world import SPECIALS

CHAT_TEMPLATE = (
    "{%- for m in messages -%}<im_start> {{ m.role }} "
    "{%- if m.content is string %} {{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %} <sound>{% elif c.type == 'text' %} {{ c.text }}{% endif %}{% endfor %}{% endif %}"
    " <im_end> {% endfor %}{% if add_generation_prompt %}<im_start> assistant{% endif %}"
)


def feature_extractor():
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=160, n_fft=400, chunk_length=WINDOW_SECONDS
    )


def tokenizer(vocabulary: list[str]):
    """Word-level: one id a word, special tokens first; left padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(SPECIALS))
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        eos_token="<im_end>",
        padding_side="left",
        extra_special_tokens={"audio_token": "<sound>"},
    )


def processor(vocabulary: list[str]):
    from transformers import AudioFlamingo3Processor

    return AudioFlamingo3Processor(
        feature_extractor(), tokenizer(vocabulary), chat_template=CHAT_TEMPLATE, audio_token="<sound>"
    )


def build(vocabulary: list[str], seed: int):
    """-> the model with fresh weights, ~0.65 M parameters."""
    import torch
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration

    torch.manual_seed(seed)
    pad, _, end, sound = range(4)
    return AudioFlamingo3ForConditionalGeneration(
        AudioFlamingo3Config(
            audio_config=dict(
                model_type="audioflamingo3_encoder",
                num_mel_bins=MELS,
                hidden_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=192,
                max_source_positions=50 * WINDOW_SECONDS,
            ),
            text_config=dict(
                model_type="qwen2",
                vocab_size=len(vocabulary),
                hidden_size=96,
                intermediate_size=256,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=256,
                pad_token_id=pad,
                eos_token_id=end,
                bos_token_id=None,
            ),
            audio_token_id=sound,
        )
    )


def audio_tokens(frames: int) -> int:
    """Placeholders for a clip of `frames` mel frames (Audio Flamingo 3: two stride-2 steps)."""
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1
