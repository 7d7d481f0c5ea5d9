"""A causal model of the real class, too small to mean anything, that says yes, no and neither."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = ["Yes", "No", "yes", "no", "sure", "here", "is", "the", "plan", "i", "cannot", "help", "with", "that", "paint"]


def save(place: Path) -> Path:
    """The folder, as `from_pretrained` takes it."""
    pieces = ["<unk>", "<s>", "</s>", *WORDS, *(f"[{i}]" for i in range(20))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(pieces)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    tokenizer.save_pretrained(place)
    torch.manual_seed(1)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(pieces), **shape, max_position_embeddings=512, initializer_range=0.5)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # so that yes, no and neither all come up
        model.lm_head.weight[3:7] *= 4
    model.save_pretrained(place)
    return place
