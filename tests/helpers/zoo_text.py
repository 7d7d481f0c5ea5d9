"""Words, tokenizers, extractors and chat templates of the tiny instances; knows no model.

The templates behave as the published ones do (system text by default or not, which placeholder, what order), and are
written anew; tests/models/test_golden_prompts.py holds them to prompts of official sources.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

RATE = 16_000
WINDOW = 2  # seconds of a window of the tiny towers; the published ones have 30, or 300 where clips are not windowed
MELS = 16
WORDS = ["system", "user", "assistant", "you", "are", "a", "helpful", "please", "tell", "me", "how", "to", "paint"]
WORDS += ["wash", "fold", "the", "red", "old", "chair", "lamp", "boat", "then", "first", "take", "some", "and"]
WORDS += ["You", "assistant.", "Audio", "1:"]  # what published templates say themselves
DEFAULT_SYSTEM = "You are a helpful assistant."
MUSIC_SYSTEM = (  # MusicFlamingo's, with its spelling
    "You are Music Flamingo, a multimodal assistant for language and music. On each turn you receive an audio clip "
    "which contains music and optional text, you will receive at least one or both; use your world knowledge and "
    "reasoning to help the user with any task. Interpret the entirety of the content any input music--regardlenss of "
    "whether the user calls it audio, music, or sound."
)


def tokenizer(
    special: Sequence[str], pad: str, eos: str, named: Mapping[str, str] | None = None
) -> PreTrainedTokenizerFast:
    """Word-level; `special` get the first ids in order, `named` are what the processors ask the tokenizer for."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*special, *WORDS])}, unk_token=pad))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=pad,
        eos_token=eos,
        padding_side="left",
        extra_special_tokens=dict(named or {}),
    )


def whisper(seconds: int = WINDOW) -> WhisperFeatureExtractor:
    """The extractor of every family but Phi-4, with few mels; `seconds` is its longest clip."""
    return WhisperFeatureExtractor(
        feature_size=MELS,
        sampling_rate=RATE,
        hop_length=160,
        n_fft=400,
        chunk_length=seconds,
        return_attention_mask=True,
    )


def _chatml(audio: str, default_system: str | None, audio_first: bool = False) -> str:
    """ChatML with text and audio pieces; `audio` is what an audio piece becomes."""
    say = "{% if c.type == 'text' or 'text' in c %}{{ c.text }}{% endif %}"
    hear = "{% if c.type == 'audio' or 'audio' in c %}" + audio + "{% endif %}"
    if audio_first:
        pieces = "{% for c in m.content %}" + hear + "{% endfor %}{% for c in m.content %}" + say + "{% endfor %}"
    else:
        pieces = "{% for c in m.content %}" + hear + say + "{% endfor %}"
    system = (
        "{% if loop.first and m.role != 'system' %}<|im_start|>system\n" + default_system + "<|im_end|>\n{% endif %}"
        if default_system
        else ""
    )
    return (
        "{% set n = namespace(audio=0) %}{% for m in messages %}" + system + "<|im_start|>{{ m.role }}\n"
        "{% if m.content is string %}{{ m.content }}{% else %}" + pieces + "{% endif %}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


TEMPLATES = {
    "audioflamingo3": _chatml("<sound>", DEFAULT_SYSTEM, audio_first=True),
    "undersong_mini": _chatml("<repo_name>", None, audio_first=True),
    "musicflamingo": _chatml("<sound>", MUSIC_SYSTEM, audio_first=True),
    "qwen2_5_omni": _chatml("<|audio_bos|><|AUDIO|><|audio_eos|>", DEFAULT_SYSTEM),
    # The language model's own, which writes no audio: what writes it is in the processor's class alone.
    "qwen2_audio": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\n" + DEFAULT_SYSTEM + "<|im_end|>\n' }}{% endif %}"
        "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "qwen3_omni_moe": _chatml("<|audio_start|><|audio_pad|><|audio_end|>", None),
    # no generation prompt: the assistant speaks right after [/INST]
    "voxtral": (
        "<s>{% for m in messages %}"
        "{% if m.role == 'system' %}[SYSTEM_PROMPT]{% elif m.role == 'user' %}[INST]{% endif %}"
        "{% if m.content is string %}{{ m.content }}{% else %}{% for c in m.content %}"
        "{% if c.type == 'audio' %}[BEGIN_AUDIO][AUDIO]{% elif c.type == 'text' %}{{ c.text }}{% endif %}{% endfor %}"
        "{% endif %}"
        "{% if m.role == 'system' %}[/SYSTEM_PROMPT]{% elif m.role == 'user' %}[/INST]{% else %}</s>{% endif %}"
        "{% endfor %}"
    ),
    # joins texts, as the language model's: it takes no list of parts and writes no audio
    "phi4_multimodal": (
        "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
    ),
}
# what users of Phi-4 write by hand
PHI4_WITH_AUDIO = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for c in m.content %}{% if c.type == 'audio' %}<|audio|>{% elif c.type == 'text' %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
