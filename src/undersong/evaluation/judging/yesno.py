"""A language model that is asked for one of two words: one forward pass a reply, and the margin between the two.

What is judged is untrusted: it is put into the prompt as it is, never as a pattern, and cannot bring the model's own
control tokens along.  Knows causal language models of transformers; does not know what a yes means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undersong.models.folders import model_folder, split_revision
from undersong.types import UndersongError

BATCH = 16
YES, NO = ("Yes", "yes", "YES"), ("No", "no", "NO")


@dataclass(frozen=True, slots=True)
class Answer:
    """`said`: yes | no (whichever words stand for them), or None where the likeliest next token is neither.
    `margin`: logit of yes less that of no."""

    said: str | None
    margin: float


@dataclass
class YesNo:
    """The model at `ref` (a folder or a hub id), loaded when first asked.

    `words`: what it says for yes, and for no.  `whole`: prompts hold their control tokens already (chat templates).
    `blanks`: blank tokens that may come before the word, each of which costs a further pass.
    """

    ref: str
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = BATCH
    words: tuple[Sequence[str], Sequence[str]] = (YES, NO)
    whole: bool = False
    blanks: int = 0

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """(tokenizer, model); safetensors only, no remote code."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = model_folder(self.ref)
        name, revision = (str(folder), None) if folder is not None else split_revision(self.ref)
        load: Any = AutoModelForCausalLM.from_pretrained
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
            model = load(name, revision=revision, dtype=getattr(torch, self.dtype), use_safetensors=True)
        except (OSError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UndersongError(f"The judge {self.ref} cannot be loaded ({reason}); give its folder or id.") from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer, model.to(self.device).eval()

    @property
    def tokenizer(self) -> Any:
        """The model's own, padded on the left; loads the model.  UndersongError where it cannot be loaded."""
        return self._loaded[0]

    @cached_property
    def _tokens(self) -> tuple[list[int], list[int]]:
        """First tokens of every way to say yes, and no, at the start of a reply."""
        tokenizer = self.tokenizer

        def begins(words: Sequence[str]) -> list[int]:
            spelled = [f"{gap}{word}" for word in words for gap in ("", " ")]
            first = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in spelled}
            blank = {tokenizer.unk_token_id, *(token for token in first if not tokenizer.decode([token]).strip())}
            return sorted(first - blank)

        sides = begins(self.words[0]), begins(self.words[1])
        if set(sides[0]) & set(sides[1]) or not all(sides):
            said = " and ".join(words[0] for words in self.words)
            raise UndersongError(f"The judge {self.ref} has no tokens of their own for {said}; take another model.")
        return sides

    def clipped(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text, with its control tokens made harmless."""
        tokenizer = self.tokenizer
        text = harmless(tokenizer, text)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= limit else tokenizer.decode(ids[:limit], skip_special_tokens=False)

    def ask(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a prompt, in order; batched by length, halved where memory runs out."""
        ids = [self.tokenizer(text, add_special_tokens=not self.whole)["input_ids"] for text in texts]
        answers: dict[int, Answer] = {}
        for blanks in range(self.blanks, -1, -1):
            found = self._batched({i: row for i, row in enumerate(ids) if i not in answers})
            for i, (answer, token) in found.items():
                if blanks and not self.tokenizer.decode([token]).strip():
                    ids[i] = [*ids[i], token]
                else:
                    answers[i] = answer
        return [answers[i] for i in range(len(ids))]

    def _batched(self, rows: Mapping[int, Sequence[int]]) -> dict[int, tuple[Answer, int]]:
        """Place -> the answer, and the likeliest next token."""
        from undersong.encoders.spoken.oom import halving

        order = sorted(rows, key=lambda i: len(rows[i]))
        found: dict[int, tuple[Answer, int]] = {}
        for places, made in halving(lambda places: self._pass([rows[i] for i in places]), order, self.batch):
            if made is None:
                raise UndersongError(
                    f"A reply is too long for the judge {self.ref} in this memory; use a larger device."
                )
            found |= dict(zip(places, made))
        return found

    def _pass(self, rows: Sequence[Sequence[int]]) -> list[tuple[Answer, int]]:
        import torch

        tokenizer, model = self._loaded
        yes, no = self._tokens
        batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt").to(model.device)
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = model(**batch, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        margins = (logits[:, yes].max(1).values - logits[:, no].max(1).values).tolist()
        first = logits.argmax(1).tolist()
        said = ["yes" if token in yes else "no" if token in no else None for token in first]
        return [(Answer(word, margin), token) for word, margin, token in zip(said, margins, first)]


def harmless(tokenizer: Any, text: str) -> str:
    """The text with the tokenizer's control tokens spelled apart, so that it cannot end its part of a prompt."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
