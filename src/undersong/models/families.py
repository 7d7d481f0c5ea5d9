"""The supported model families, one `Family` specification each. To support another family, add a specification
(docs/how-to/add-a-model.md). Sources: the classes and processors of transformers, and Kimi-Audio's published code
(docs/reference/models.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

from undersong.models.audio_inputs import (
    prepare_kimi,
    prepare_padded_windows,
    prepare_split_windows,
    prepare_trimmed,
    prepare_unpadded,
    prepare_with_extractor,
)
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

    from undersong.models.audio_inputs import InputPreparation


CLASS_SUFFIX = re.compile(r"For[A-Z]\w*$")  # shared by the classes of most families
BY_ROLE, BY_FIRST_USER_TEXT = "system role", "first user text"


@dataclass(frozen=True)
class ActivationView:
    """An activation to pool per clip: the output of the module at `path`, or its positional input `argument`.

    Two-dimensional states have one row per placeholder. Three-dimensional ones are (windows, rows, dim); a window with
    `frames` valid feature frames fills the first `rows(frames)` rows (None: one per placeholder).
    """

    path: str
    argument: int | None = None
    rows: Callable[[int], int] | None = None


def _token_embeddings(model: Any, ids: torch.Tensor) -> torch.Tensor:
    embeddings: torch.Tensor = model.get_input_embeddings()(ids)
    return embeddings


@dataclass(frozen=True)
class Family:
    """A model family. `audio_tokens(frames)` is the number of placeholders of a window with that many valid feature
    frames.

    The decoder is found by `get_decoder()`; `frozen` are the module paths of encoder and projector.
    """

    name: str
    model_types: tuple[str, ...]  # of config.json
    example: str  # a published checkpoint
    model_class: str  # of transformers, or a path `module:Class`
    audio_token: str  # the placeholder
    prepare: InputPreparation  # clip -> tensors
    audio_tokens: Callable[[int], int]
    frozen: tuple[str, ...]
    views: dict[str, ActivationView]  # by name; `tower` and `projector` at least
    placeholder: str = "audio_token_id"  # path of the placeholder's id in the config
    audio_delimiters: tuple[str, str] = ("", "")  # texts of the family's own processor around the placeholders
    max_windows: int | None = None  # most windows of the extractor's length; None: as long as the decoder's context
    window_seconds: int = 30  # length of a window in the published checkpoints
    cast_inputs: bool = True  # features must have the network's dtype; False: the network casts them itself
    float32: tuple[str, ...] = ()  # modules that stay in float32 whatever dtype is requested
    rate: int = 16_000  # Hz that the published feature extractor takes
    hop: int = 160  # samples a feature frame
    padded_placeholders: bool = False  # placeholders stand for a window's padding too; only the valid ones are pooled
    end_token: str | None = None  # ends an assistant's turn; None, or if the tokenizer has no such token: its eos
    system: str = BY_ROLE  # position of a system text
    chat_template: str | None = None  # for checkpoints that publish none, or one without the placeholder
    embed: Callable[[Any, torch.Tensor], torch.Tensor] = _token_embeddings  # (model, ids) -> decoder inputs of text
    loader: str | None = None  # `module:function` if `from_pretrained` alone cannot load a checkpoint
    meta_loader: str | None = None  # the same for the network without weights, on the meta device
    weight_parts: str | None = None  # the same for the networks whose weights it is made of, as `WeightPart`s
    unused: str | None = None  # pattern for names of tensors that a checkpoint holds for speech output
    tokenizer: str | None = None  # the same for the tokenizer
    extractor: str | None = None  # the same for the feature extractor
    merged: tuple[str, ...] = ()  # LoRA folders of the checkpoint that speech needs, merged on loading
    silence_detector: str | None = None  # the same for (model, audio vectors (n, dim)) -> silent (n,) bool; None: none
    tokenizer_options: dict[str, Any] = field(default_factory=dict)  # of `AutoTokenizer.from_pretrained`
    architectures: tuple[str, ...] = ()  # of a config.json that names no model_type
    publishes_text_end: bool = True  # generation_config.json says what ends a text; False: it ends speech output

    @property
    def max_duration_text(self) -> str:
        """The longest clip, in words."""
        return (
            "as long as its context"
            if self.max_windows is None
            else f"of up to {self.max_windows * self.window_seconds} s"
        )


def _conv_and_pool_tokens(frames: int) -> int:
    """A stride-2 convolution, then average pooling by 2: 25 tokens per second."""
    return max(0, ((frames - 1) // 2 + 1 - 2) // 2 + 1)


def _tokens_of_eight_frames(frames: int) -> int:
    """Eight frames per placeholder, rounded up: 12.5 tokens per second."""
    return -(-frames // 8)


def _qwen3_omni_tokens(frames: int) -> int:
    """Three stride-2 convolutions over chunks of 100 frames, 13 tokens per chunk."""
    remainder = frames % 100
    return frames // 100 * 13 + (((remainder - 1) // 2 + 1 - 1) // 2 + 1 - 1) // 2 + 1


_FLAMINGO_FROZEN = ("model.audio_tower", "model.multi_modal_projector")
_FLAMINGO_VIEWS = {
    "tower": ActivationView("model.audio_tower"),
    "projector": ActivationView("model.multi_modal_projector", argument=0),
}

AUDIO_FLAMINGO_3 = Family(
    name="Audio Flamingo 3",
    model_types=("audioflamingo3",),
    example="nvidia/audio-flamingo-3-hf",
    model_class="AudioFlamingo3ForConditionalGeneration",
    audio_token="<sound>",
    prepare=prepare_padded_windows("input_features_mask"),
    audio_tokens=_conv_and_pool_tokens,
    frozen=_FLAMINGO_FROZEN,
    views=_FLAMINGO_VIEWS,
    max_windows=20,
    end_token="<|im_end|>",
)
MUSIC_FLAMINGO = Family(
    name="MusicFlamingo",
    model_types=("musicflamingo",),
    example="nvidia/music-flamingo-2601-hf",
    model_class="MusicFlamingoForConditionalGeneration",
    audio_token="<sound>",
    prepare=prepare_padded_windows("input_features_mask"),
    audio_tokens=_conv_and_pool_tokens,
    frozen=(*_FLAMINGO_FROZEN, "model.pos_emb"),
    views=_FLAMINGO_VIEWS,
    audio_delimiters=("<|sound_bos|>", "<|sound_eos|>"),
    max_windows=40,
    end_token="<|im_end|>",
)
# Our own: AF3's class with a smaller audio encoder and an optional CTC projector (`models/mini`).
MINI = replace(
    AUDIO_FLAMINGO_3,
    name="Mini",
    model_types=("undersong_mini",),
    example="mini",
    model_class="undersong.models.mini.network:MiniForConditionalGeneration",
    audio_token="<repo_name>",  # one of SmolLM2's code tokens, which no speech has
    max_windows=1,
    window_seconds=7,
    end_token="<|im_end|>",
    silence_detector="undersong.models.mini.network:silent_frames",
)
KIMI_AUDIO = Family(
    name="Kimi-Audio",
    model_types=("moonshot_kimia", "kimi_audio"),
    architectures=("MoonshotKimiaForCausalLM",),  # all that the published config.json says
    example="moonshotai/Kimi-Audio-7B-Instruct",
    model_class="undersong.models.kimi.network:KimiAudioForCausalLM",
    audio_token="<|audio|>",
    placeholder="kimia_token_offset",
    prepare=prepare_kimi(),
    audio_tokens=_tokens_of_eight_frames,
    frozen=("audio_tower", "audio_tokenizer", "model.vq_adaptor"),
    views={
        "tower": ActivationView("audio_tower", rows=lambda frames: _tokens_of_eight_frames(frames) * 4),
        "projector": ActivationView("model.vq_adaptor", argument=0),
        "codes": ActivationView("model.fusion", argument=0),
        "continuous": ActivationView("model.fusion", argument=1),
    },
    end_token="<|im_kimia_text_eos|>",
    system=BY_FIRST_USER_TEXT,
    float32=("audio_tokenizer",),
    cast_inputs=False,  # codes are computed in float32 whatever dtype the language model has
    embed=lambda model, ids: model.embed(ids),
    loader="undersong.models.kimi.load:load_kimi",
    meta_loader="undersong.models.kimi.load:kimi_skeleton",
    weight_parts="undersong.models.kimi.load:kimi_weight_parts",
    publishes_text_end=False,
    tokenizer="undersong.models.kimi.processing:kimi_tokenizer",
    extractor="undersong.models.kimi.load:kimi_extractor",
)
QWEN2_5_OMNI = Family(
    name="Qwen2.5-Omni",
    model_types=("qwen2_5_omni", "qwen2_5_omni_thinker"),
    example="Qwen/Qwen2.5-Omni-7B",
    model_class="Qwen2_5OmniThinkerForConditionalGeneration",
    audio_token="<|AUDIO|>",
    prepare=prepare_trimmed("feature_attention_mask"),
    audio_tokens=_conv_and_pool_tokens,
    frozen=("model.audio_tower",),
    views={
        "tower": ActivationView("model.audio_tower.ln_post"),
        "projector": ActivationView("model.audio_tower.proj", argument=0),
    },
    unused=r"talker\.|token2wav\.",
    max_windows=1,
    window_seconds=300,
    end_token="<|im_end|>",
)
QWEN2_AUDIO = Family(
    name="Qwen2-Audio",
    model_types=("qwen2_audio",),
    example="Qwen/Qwen2-Audio-7B-Instruct",
    model_class="Qwen2AudioForConditionalGeneration",
    audio_token="<|AUDIO|>",
    prepare=prepare_padded_windows("feature_attention_mask"),
    audio_tokens=_conv_and_pool_tokens,
    frozen=_FLAMINGO_FROZEN,
    views=_FLAMINGO_VIEWS,
    max_windows=1,
    end_token="<|im_end|>",
    # Published in no file of the checkpoint, only as the default of transformers' Qwen2AudioProcessor.
    chat_template=(
        "{% set audio_count = namespace(value=0) %}{% for message in messages %}"
        "{% if loop.first and message['role'] != 'system' %}"
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
        "<|im_start|>{{ message['role'] }}\n"
        "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
        "{% for content in message['content'] %}"
        "{% if 'audio' in content or 'audio_url' in content or content['type'] == 'audio' %}"
        "{% set audio_count.value = audio_count.value + 1 %}"
        "Audio {{ audio_count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n"
        "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
)
VOXTRAL = Family(
    name="Voxtral",
    model_types=("voxtral",),
    example="mistralai/Voxtral-Mini-3B-2507",
    model_class="VoxtralForConditionalGeneration",
    audio_token="[AUDIO]",
    prepare=prepare_split_windows(),
    audio_tokens=_tokens_of_eight_frames,
    frozen=_FLAMINGO_FROZEN,
    views={
        "tower": ActivationView("model.audio_tower", rows=lambda frames: -(-frames // 2)),
        "projector": ActivationView("model.multi_modal_projector", argument=0),
    },
    padded_placeholders=True,
    end_token="</s>",
    system=BY_FIRST_USER_TEXT,
    chat_template=(
        "{{ bos_token }}{%- for m in messages -%}"
        "{%- if m.role == 'user' %}[INST]{% for c in m.content %}"
        "{% if c.type == 'audio' %}[BEGIN_AUDIO][AUDIO]{% else %}{{ c.text }}{% endif %}{% endfor %}[/INST]"
        "{%- elif m.role == 'assistant' %}{% for c in m.content %}{{ c.text }}{% endfor %}{{ eos_token }}"
        "{%- else %}{{ raise_exception('Voxtral has no role ' + m.role) }}{% endif %}{% endfor %}"
    ),
    # tekken.json as transformers itself reads it: mistral-common's tokenizer, if installed, knows no placeholder
    tokenizer_options={"mistral_format": False, "pad_token": "<pad>", "eos_token": "</s>", "bos_token": "<s>"},
)
PHI_4 = Family(
    name="Phi-4-multimodal",
    model_types=("phi4_multimodal",),
    example="microsoft/Phi-4-multimodal-instruct@refs/pr/70",
    model_class="Phi4MultimodalForCausalLM",
    audio_token="<|audio|>",
    placeholder="audio_config.audio_token_id",
    prepare=prepare_with_extractor(),
    audio_tokens=_tokens_of_eight_frames,
    frozen=("model.embed_tokens_extend",),
    views={
        "tower": ActivationView("model.embed_tokens_extend.audio_embed.encoder"),
        "projector": ActivationView("model.embed_tokens_extend.audio_embed.up_proj_for_speech", argument=0),
    },
    end_token="<|end|>",
    # The published template joins texts: it takes no list of parts and writes no audio.
    chat_template=(
        "{% for message in messages %}<|{{ message['role'] }}|>"
        "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
        "{% for content in message['content'] %}"
        "{% if content['type'] == 'audio' %}<|audio|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
        "{% endfor %}{% endif %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    merged=("speech-lora",),
)
QWEN3_OMNI = Family(
    name="Qwen3-Omni",
    model_types=("qwen3_omni_moe", "qwen3_omni_moe_thinker"),
    example="Qwen/Qwen3-Omni-30B-A3B-Instruct",
    model_class="Qwen3OmniMoeThinkerForConditionalGeneration",
    audio_token="<|audio_pad|>",
    prepare=prepare_unpadded("feature_attention_mask"),
    audio_tokens=_qwen3_omni_tokens,
    frozen=("model.audio_tower",),
    views={
        "tower": ActivationView("model.audio_tower.ln_post"),
        "projector": ActivationView("model.audio_tower.proj1", argument=0),
    },
    unused=r"talker\.|code2wav\.",
    end_token="<|im_end|>",
)

FAMILIES = (
    AUDIO_FLAMINGO_3,
    KIMI_AUDIO,
    QWEN2_5_OMNI,
    QWEN2_AUDIO,
    VOXTRAL,
    MUSIC_FLAMINGO,
    PHI_4,
    QWEN3_OMNI,
    MINI,
)


def family_of(model_type: str, item: str) -> Family:
    """The family for a config's `model_type`; `item` names the model in the error, which names the nearest family."""
    by_type = {name: family for family in FAMILIES for name in family.model_types}
    if model_type in by_type:
        return by_type[model_type]
    raise UndersongError(
        f"config.json of {item} is of the family {model_type!r}, which has no spec; {nearest_family(model_type)}."
    )


def nearest_family(name: str) -> str:
    """The end of an error: the family whose model_type or class is most like `name`; all families if none is."""
    by_stem = {
        CLASS_SUFFIX.sub("", label): family
        for family in FAMILIES
        for label in (*family.model_types, family.model_class.rpartition(":")[2], *family.architectures)
    }
    closest = get_close_matches(CLASS_SUFFIX.sub("", name), by_stem, n=1, cutoff=0.7)
    if not closest:
        return f"give a model of {', '.join(family.name for family in FAMILIES)}"
    family = by_stem[closest[0]]
    return f"the nearest family here is {family.name} (model_type {family.model_types[0]}), such as {family.example}"


def family_of_architecture(architectures: Sequence[str]) -> Family | None:
    """The family whose published config.json names one of these architectures and no model_type; None if there is
    none.
    """
    return next((family for family in FAMILIES if set(family.architectures) & set(architectures)), None)


def network_class(family: Family) -> Any:
    """The class of a family's networks."""
    import transformers

    return import_object(family.model_class) if ":" in family.model_class else getattr(transformers, family.model_class)


def import_object(path: str) -> Any:
    """Import the object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)
