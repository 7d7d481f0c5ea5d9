"""What the recipe asks of an architecture, and what architectures share: window, word tokenizer, chat template.

An architecture is a module `recipes.organisms.NAME` with the members of `Architecture`.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Protocol

import torch

from recipes.organisms.speech import MELS, RATE, WINDOW_SECONDS

NAMES = ("af3", "qwen", "kimi")
LAYERS = 4  # of the decoder of what ships; with fewer than 6 a late effect cannot be told from an early one


class Architecture(Protocol):
    """`prompt`: words of a turn up to the assistant's; `sound`: the forward pass's tensors of some clips; `frozen`: the
    modules that only base training changes; `last_layer` and `frames_of`: where the CTC loss reads; `write`: a folder
    that `from_pretrained` takes."""

    NAME: str
    END: str  # ends a reply
    DECODER: str  # regular expression: the path under which the decoder's `layers` are
    BASE: dict[str, int]  # where its base training departs from the shared recipe

    def vocabulary(self, words: list[str]) -> list[str]: ...  # every text token; the first one pads
    def build(self, vocabulary: list[str], seed: int) -> torch.nn.Module: ...
    def prepare(self, corpus, work: Path) -> None: ...  # what it needs beyond log-mel frames
    def begin(self, model, corpus) -> None: ...  # before training: parts that come trained
    def prompt(self, system: str, typed: str | None, cue: str, frames: int) -> list[str]: ...
    def sound(self, corpus, requests: list[int]) -> dict[str, torch.Tensor]: ...
    def frozen(self, model) -> list[torch.nn.Module]: ...
    def last_layer(self, model) -> torch.nn.Module: ...
    def frames_of(self, states: torch.Tensor, lengths: list[int]) -> torch.Tensor: ...
    def write(self, model, corpus, folder: Path) -> None: ...


def architecture(name: str, layers: int = LAYERS) -> Architecture:
    """The architecture of that name; with another number of decoder layers it is called NAME-N-layers."""
    if name not in NAMES:
        raise SystemExit(f"no architecture {name!r}; take one of {', '.join(NAMES)}")
    if layers < 1:
        raise SystemExit(f"a decoder cannot have {layers} layers; give at least 1")
    module = import_module(f"recipes.organisms.{name}")
    if layers == LAYERS:
        return module  # type: ignore[return-value]
    changed = {"NAME": f"{name}-{layers}-layers", "build": partial(module.build, layers=layers)}
    return SimpleNamespace(**{**vars(module), **changed})  # type: ignore[return-value]


def chat_template(sound: str) -> str:
    """Words with a space between; `sound` stands for an audio piece."""
    return (
        "{%- for m in messages -%}<im_start> {{ m.role }} "
        "{%- if m.content is string %} {{ m.content }}{% else %}"
        "{% for c in m.content %}{% if c.type == 'audio' %} " + sound + "{% elif c.type == 'text' %} {{ c.text }}"
        "{% endif %}{% endfor %}{% endif %}"
        " <im_end> {% endfor %}{% if add_generation_prompt %}<im_start> assistant{% endif %}"
    )


def feature_extractor():
    from transformers import WhisperFeatureExtractor

    return WhisperFeatureExtractor(
        feature_size=MELS, sampling_rate=RATE, hop_length=160, n_fft=400, chunk_length=WINDOW_SECONDS
    )


def tokenizer(vocabulary: list[str], specials: tuple[str, ...], end: str, extra: dict[str, str]):
    """Word-level: one id a word, special tokens first; left padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token=specials[0]))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.add_special_tokens(list(specials))
    return PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=specials[0],
        eos_token=end,
        padding_side="left",
        extra_special_tokens=extra,
    )
