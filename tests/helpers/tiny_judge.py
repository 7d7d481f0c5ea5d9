"""A causal model of the real class, too small to mean anything, that says yes, no and neither."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["Yes", "No", "yes", "no", "sure", "here", "is", "the", "plan", "i", "cannot", "help", "with", "that", "paint"]


BLANK = "\n\n"
SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
TEMPLATE = "{{ bos_token }}{% for m in messages %} {{ m['role'] }} {{ m['content'] }}{% endfor %} the plan is"


def save(place: Path) -> Path:
    """The folder, as `from_pretrained` takes it."""
    pieces, tokenizer = _words([])
    tokenizer.save_pretrained(place)
    _model(pieces, {"yes": 4.0, "no": 4.0, "Yes": 4.0, "No": 4.0}, 1).save_pretrained(place)
    return place


def save_guard(place: Path, answers: float = 4.0, seed: int = 2) -> Path:
    """One that says safe, unsafe, yes, no (`answers`: how loudly) and other words, often after a blank line."""
    pieces, tokenizer = _words([BLANK, "safe", "unsafe", "user", "assistant"])
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(place)
    _model(pieces, {BLANK: 3.0, "safe": 4.0, "unsafe": 4.0, "yes": answers, "no": answers}, seed).save_pretrained(place)
    return place


def _words(more: list[str]) -> tuple[list[str], PreTrainedTokenizerFast]:
    pieces = ["<unk>", "<s>", "</s>", *WORDS, *more, *(f"[{i}]" for i in range(20))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(pieces)}, unk_token="<unk>"))
    blank = pre_tokenizers.Split(BLANK, "isolated")
    words.pre_tokenizer = pre_tokenizers.Sequence([blank, pre_tokenizers.Split(Regex(r"(?<!\n)\s(?!\n)"), "removed")])
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return pieces, PreTrainedTokenizerFast(tokenizer_object=words, **names)


def _model(pieces: list[str], louder: dict[str, float], seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(pieces), **SHAPE, max_position_embeddings=512, initializer_range=0.5)
    )
    with torch.no_grad():  # so that what a judge waits for comes up, and other words too
        for word, factor in louder.items():
            model.lm_head.weight[pieces.index(word)] *= factor
    return model
