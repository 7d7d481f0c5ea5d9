"""Sentences that the language model writes itself, so that the front end hears many more words than the public sets have.

For each common word that those hardly have, the beginning of a question or of a request with it, which the language
model ends as it likes.  Nothing is answered or asked of them: they are heard and spelled, and that is all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recipes.mini.near_duplicates import plain
from recipes.mini.texts import WRITTEN, Text, speakable, tidy
from recipes.mini.weights import Base
from recipes.mini.work_files import costed, read_figures, read_lines, write_figures, write_lines
from undersong.corpora.near_duplicates import TEXT_THRESHOLD, find_similar_texts
from undersong.models.load_options import LoadOptions
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import UndersongError

RARE = 3  # times that a word is in the public sentences: it is written about where it is there less often
BATCH, TOKENS = 256, 12
BEGINNINGS = (
    "What is the {}", "How does the {}", "Who was the {}", "Describe the {}", "Give me an example of {}",
    "When did the {}", "Why do {}", "Write about the {}", "Where is the {}", "List some {}", "Tell me about {}",
    "How many {}", "Explain how {}",
)  # fmt: skip
WORD = re.compile("[a-z]{3,}")


def run(work: Path, base: Base, count: int, seed: int, loading: LoadOptions) -> None:
    """`written.jsonl`, batch by batch: a killed run goes on where it was.  UndersongError: it was begun for another count or
    seed."""
    file = work / "written.jsonl"
    figures = read_figures(work).get("written", {})
    for name, value in {"asked": count, "seed": seed}.items():
        if figures.get(name, value) != value:
            raise UndersongError(
                f"{file} was begun with {name} {figures[name]}, and {value} is asked; take another --work."
            )
    if figures.get("whole"):
        return
    figures |= {"asked": count, "seed": seed}
    public = read_lines(work / "texts.jsonl")
    words = wanted_words(base, [text["text"] for text in public if text["split"] == "train"], count)
    held = [plain(text["text"]) for text in public if text["split"] != "train"]
    known = {plain(text["text"]) for text in public}
    done = read_lines(file) if file.is_file() else []
    known |= {plain(text["text"]) for text in done}
    # A copy: the base weights themselves are learned on in full, whatever these sentences are written in.
    model = deepcopy(base.language).to(loading.device, getattr(torch, loading.dtype)) if words else base.language
    for start in range(figures.get("words", 0), len(words), BATCH):
        now = words[start : start + BATCH]
        with costed(figures):
            said = ended(base, model, _begun(now, seed, start), [seed, start])
        fresh = [text for text in said if speakable(text) and plain(text) not in known]
        near = {i for i, _, _ in find_similar_texts([plain(text) for text in fresh], held, TEXT_THRESHOLD)}
        for text in (text for i, text in enumerate(fresh) if i not in near):
            if plain(text) in known:  # of the same batch
                continue
            known.add(plain(text))
            name = f"{WRITTEN}{len(done)}"
            done.append(asdict(Text(name, text, WRITTEN, "train", name)))
        write_lines(file, done)
        figures |= {"words": start + len(now), "sentences": len(done)}
        write_figures(work, "written", figures)
        print(f"written: {len(done)} sentences about {start + len(now)} of {len(words)} words", flush=True)
    write_figures(work, "written", figures | {"whole": True})


def wanted_words(base: Base, sentences: Sequence[str], count: int) -> list[str]:
    """Words that are one token of the language model's, the commonest first, less those that are heard often anyway."""
    heard = Counter(token for text in sentences for token in base.target(text))
    tokens = base.tokenizer.convert_ids_to_tokens(list(range(len(base.tokenizer))))
    whole = [(i, token[1:]) for i, token in enumerate(tokens) if token.startswith("Ġ") and WORD.fullmatch(token[1:])]
    return [word for i, word in whole if heard[i] < RARE][:count]


def _begun(words: Sequence[str], seed: int, start: int) -> list[str]:
    rng = np.random.default_rng([seed, 6, start])
    return [BEGINNINGS[i].format(word) for i, word in zip(rng.integers(len(BEGINNINGS), size=len(words)), words)]


def ended(base: Base, model: Any, begun: Sequence[str], seed: Sequence[int]) -> list[str]:
    """The beginnings, ended by the language model: up to the first mark, or to the last word that it had time for."""
    tokenizer = base.tokenizer
    tokenizer.padding_side = "left"
    inputs = tokenizer(list(begun), return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode(), temporary_seed(int(np.random.default_rng([*seed, 7]).integers(2**31))):
        out = model.generate(
            **inputs, max_new_tokens=TOKENS, do_sample=True, temperature=0.9, top_k=40, top_p=1.0,
            pad_token_id=tokenizer.eos_token_id,
        )  # fmt: skip
    ends = tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return list(_tidied(begun, ends))


def _tidied(begun: Sequence[str], ends: Sequence[str]) -> Iterator[str]:
    for begin, end in zip(begun, ends):
        marked = re.match(r"[^\n.?!:;()\"]*(?=[\n.?!:;()\"])", end)
        said = marked.group() if marked else end.rpartition(" ")[0]
        yield tidy(begin + said.replace("’", "'")).rstrip(" ,-") + (
            "?" if begin.split()[0] in ("What", "How", "Who", "When", "Why", "Where") else "."
        )
