"""A language model that is asked for one of two words: one forward pass a reply, and the margin between the two.

What is judged is untrusted: it is put into the prompt as it is, never as a pattern, and cannot bring the model's own
control tokens along.  Knows causal language models of transformers; does not know what a yes means.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from undersong.models.refs import model_folder, split_revision
from undersong.types import UndersongError

BATCH_SIZE = 16
YES_TOKENS, NO_TOKENS = ("Yes", "yes", "YES"), ("No", "no", "NO")


@dataclass(frozen=True, slots=True)
class YesNoAnswer:
    """`said`: yes | no (whichever words stand for them), or None where the likeliest next token is neither.
    `margin`: logit of yes less that of no."""

    label: str | None
    margin: float


@dataclass
class YesNoLM:
    """The model at `ref` (a folder or a hub id), loaded when first asked.

    `words`: what it says for yes, and for no.  `whole`: prompts hold their control tokens already (chat templates).
    `blanks`: blank tokens that may come before the word, each of which costs a further pass.
    """

    ref: str
    device: str = "cpu"
    dtype: str = "float32"
    batch_size: int = BATCH_SIZE
    labels: tuple[Sequence[str], Sequence[str]] = (YES_TOKENS, NO_TOKENS)
    has_special_tokens: bool = False
    max_blank_tokens: int = 0

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """(tokenizer, model); safetensors only, no remote code."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = model_folder(self.ref)
        name, revision = (str(folder), None) if folder is not None else split_revision(self.ref)
        load_model: Any = AutoModelForCausalLM.from_pretrained
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, padding_side="left")
            model = load_model(name, revision=revision, dtype=getattr(torch, self.dtype), use_safetensors=True)
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
    def _label_tokens(self) -> tuple[list[int], list[int]]:
        """First tokens of every way to say yes, and no, at the start of a reply."""
        tokenizer = self.tokenizer

        def first_token_ids(spellings: Sequence[str]) -> list[int]:
            texts = [f"{prefix}{word}" for word in spellings for prefix in ("", " ")]
            token_ids = {tokenizer(text, add_special_tokens=False)["input_ids"][0] for text in texts}
            blank_ids = {
                tokenizer.unk_token_id,
                *(token for token in token_ids if not tokenizer.decode([token]).strip()),
            }
            return sorted(token_ids - blank_ids)

        yes_and_no = first_token_ids(self.labels[0]), first_token_ids(self.labels[1])
        if set(yes_and_no[0]) & set(yes_and_no[1]) or not all(yes_and_no):
            label_names = " and ".join(spellings[0] for spellings in self.labels)
            raise UndersongError(
                f"The judge {self.ref} has no tokens of their own for {label_names}; take another model."
            )
        return yes_and_no

    def truncate_text(self, text: str, max_tokens: int) -> str:
        """The first `limit` tokens of a text, with its control tokens made harmless."""
        tokenizer = self.tokenizer
        text = escape_special_tokens(tokenizer, text)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return text if len(ids) <= max_tokens else tokenizer.decode(ids[:max_tokens], skip_special_tokens=False)

    def predict(self, texts: Sequence[str]) -> list[YesNoAnswer]:
        """One answer a prompt, in order; batched by length, halved where memory runs out."""
        ids = [self.tokenizer(text, add_special_tokens=not self.has_special_tokens)["input_ids"] for text in texts]
        answers: dict[int, YesNoAnswer] = {}
        for blanks_left in range(self.max_blank_tokens, -1, -1):
            predictions = self._predict_batches({i: row for i, row in enumerate(ids) if i not in answers})
            for i, (answer, token) in predictions.items():
                if blanks_left and not self.tokenizer.decode([token]).strip():
                    ids[i] = [*ids[i], token]
                else:
                    answers[i] = answer
        return [answers[i] for i in range(len(ids))]

    def _predict_batches(self, rows: Mapping[int, Sequence[int]]) -> dict[int, tuple[YesNoAnswer, int]]:
        """Place -> the answer, and the likeliest next token."""
        from undersong.encoders.spoken.oom import halve_on_oom

        order = sorted(rows, key=lambda i: len(rows[i]))
        predictions: dict[int, tuple[YesNoAnswer, int]] = {}
        for indices, batch_predictions in halve_on_oom(
            lambda indices: self._forward([rows[i] for i in indices]), order, self.batch_size
        ):
            if batch_predictions is None:
                raise UndersongError(
                    f"A reply is too long for the judge {self.ref} in this memory; use a larger device."
                )
            predictions |= dict(zip(indices, batch_predictions))
        return predictions

    def _forward(self, rows: Sequence[Sequence[int]]) -> list[tuple[YesNoAnswer, int]]:
        import torch

        tokenizer, model = self._loaded
        yes_ids, no_ids = self._label_tokens
        batch = tokenizer.pad({"input_ids": [list(row) for row in rows]}, return_tensors="pt").to(model.device)
        positions = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
        with torch.inference_mode():
            logits = model(**batch, position_ids=positions, logits_to_keep=1, use_cache=False).logits[:, -1].float()
        margins = (logits[:, yes_ids].max(1).values - logits[:, no_ids].max(1).values).tolist()
        next_tokens = logits.argmax(1).tolist()
        labels = ["yes" if token in yes_ids else "no" if token in no_ids else None for token in next_tokens]
        return [(YesNoAnswer(label, margin), token) for label, margin, token in zip(labels, margins, next_tokens)]


def escape_special_tokens(tokenizer: Any, text: str) -> str:
    """The text with the tokenizer's control tokens spelled apart, so that it cannot end its part of a prompt."""
    for token in tokenizer.all_special_tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text
