"""A language model that is asked yes or no: one forward pass a reply, and the margin between the two answers.

What is judged is untrusted: it is put into the prompt as it is, never as a pattern, and cannot bring the model's own
control tokens along.  Knows causal language models of transformers; does not know what a yes means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undersong.models.folders import model_folder, split_revision
from undersong.types import UndersongError

BATCH = 16
YES, NO = ("Yes", "yes", "YES"), ("No", "no", "NO")


@dataclass(frozen=True, slots=True)
class Answer:
    """`said`: yes | no, or None where the likeliest next token is neither.  `margin`: logit of yes less that of no."""

    said: str | None
    margin: float


@dataclass
class YesNo:
    """The model at `ref` (a folder or a hub id), loaded when first asked."""

    ref: str
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = BATCH

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

    @cached_property
    def _tokens(self) -> tuple[list[int], list[int]]:
        """First tokens of every way to say yes, and no, at the start of a reply."""
        tokenizer, _ = self._loaded

        def begins(words: Sequence[str]) -> list[int]:
            spelled = [f"{gap}{word}" for word in words for gap in ("", " ")]
            first = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in spelled}
            blank = {tokenizer.unk_token_id, *(token for token in first if not tokenizer.decode([token]).strip())}
            return sorted(first - blank)

        sides = begins(YES), begins(NO)
        if set(sides[0]) & set(sides[1]) or not all(sides):
            raise UndersongError(f"The judge {self.ref} has no tokens of their own for yes and no; take another model.")
        return sides

    def clipped(self, text: str, limit: int) -> str:
        """The first `limit` tokens of a text, with its control tokens made harmless."""
        tokenizer, _ = self._loaded
        for token in tokenizer.all_special_tokens:
            text = text.replace(token, f"{token[0]} {token[1:]}")
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= limit else tokenizer.decode(ids[:limit], skip_special_tokens=False)

    def ask(self, texts: Sequence[str]) -> list[Answer]:
        """One answer a prompt, in order; batched by length, halved where memory runs out."""
        from undersong.encoders.spoken.oom import halving

        tokenizer, _ = self._loaded
        ids = [tokenizer(text)["input_ids"] for text in texts]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        answers: dict[int, Answer] = {}
        for rows, made in halving(lambda rows: self._pass([ids[i] for i in rows]), order, self.batch):
            if made is None:
                raise UndersongError(
                    f"A reply is too long for the judge {self.ref} in this memory; use a larger device."
                )
            answers |= dict(zip(rows, made))
        return [answers[i] for i in range(len(ids))]

    def _pass(self, rows: Sequence[Sequence[int]]) -> list[Answer]:
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
        return [Answer(word, margin) for word, margin in zip(said, margins)]
