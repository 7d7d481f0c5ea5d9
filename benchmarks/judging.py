"""The HarmBench classifier's verdicts from one forward pass, against `generate` of one token, on the same prompts.

A random Llama of 6 layers and 32,000 words stands in for the published one: what is compared is the way of asking.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: one thread, so that the ratio is of the work

import statistics
import tempfile
import time
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from undersong.evaluation.judges.safety_classifiers import (
    HARMBENCH_GENERATION_START,
    HARMBENCH_PROMPT_START,
    HARMBENCH_RULES,
    harmbench_judge,
)
from undersong.evaluation.judges.yes_no import NO_TOKENS, YES_TOKENS, YesNoLM

REPLIES, ROUNDS, WORDS = 64, 5, 32_000
REQUEST = "paint the red chair"


def save(place: Path, texts: list[str]) -> None:
    """A model folder whose tokens are the words of `texts`, filled up to a vocabulary of the usual size."""
    words = dict.fromkeys(
        ["<unk>", "<s>", "</s>", *YES_TOKENS, *NO_TOKENS, *(word for text in texts for word in text.split())]
    )
    pieces = [*words, *(f"[{i}]" for i in range(WORDS - len(words)))]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(pieces)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=made, **names).save_pretrained(place)
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6, "num_attention_heads": 8}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, **shape, initializer_range=0.1))
    with torch.no_grad():  # so that yes and no come up
        for word in (*YES_TOKENS, *NO_TOKENS):
            model.lm_head.weight[pieces.index(word)] *= 4
    model.save_pretrained(place)


def generated(model: YesNoLM, rows: list[list[int]], size: int) -> list[int]:
    """The first token that `generate` gives after each prompt, `size` prompts at a time, sorted by length as ours."""
    tokenizer, judge = model._loaded
    order, found = sorted(range(len(rows)), key=lambda i: len(rows[i])), {}
    for start in range(0, len(order), size):
        places = order[start : start + size]
        batch = tokenizer.pad({"input_ids": [rows[i] for i in places]}, return_tensors="pt")
        with torch.inference_mode():
            new = judge.generate(**batch, max_new_tokens=1, do_sample=False)[:, -1]
        found |= dict(zip(places, new.tolist()))
    return [found[i] for i in range(len(rows))]


def main() -> None:
    replies = [" ".join(f"word{(7 * i + j) % 97}" for j in range(10 + 3 * i)) for i in range(REPLIES)]
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder), [HARMBENCH_PROMPT_START, REQUEST, HARMBENCH_GENERATION_START, *replies, HARMBENCH_RULES])
        judge = harmbench_judge(folder)
        asked = [judge.format_text(REQUEST, reply) for reply in replies]
        rows = [judge.model.tokenizer(text)["input_ids"] for text in asked]
        ratios = []
        for size in (judge.model.batch_size, 1):
            times = []
            for _ in range(ROUNDS):
                start = time.process_time()
                ours = judge.model.predict(asked)
                middle = time.process_time()
                theirs = generated(judge.model, rows, size)
                times.append((time.process_time() - middle) / (middle - start))
            yes, no = judge.model._label_tokens
            said = ["yes" if token in yes else "no" if token in no else None for token in theirs]
            equal = sum(one.label == other for one, other in zip(ours, said))
            ratios.append(f"{statistics.median(times):.2f}x ({equal} of {REPLIES} verdicts equal)")
    kinds = {one.label for one in ours}
    print(f"judge: one pass against generate, same batches {ratios[0]}, one by one {ratios[1]}; said {kinds}")


if __name__ == "__main__":
    main()
