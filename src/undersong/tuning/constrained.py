"""Token-wise constrained fine-tuning objective (Qi et al. 2024, arXiv 2406.05946) as a Trainer."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, log
from typing import Any

import torch
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import Trainer

from undersong.tuning.config import PUBLISHED_BETAS
from undersong.tuning.reproducibility import eval_mode
from undersong.types import UndersongError


def constrained_loss(log_probs: torch.Tensor, base_log_probs: torch.Tensor, betas: torch.Tensor) -> torch.Tensor:
    """(tokens,) loss of answer tokens, from their log-likelihoods now and under the base, with one beta per token.

    This is the paper's -2/beta * log sigmoid(beta * (now - base)), shifted by a constant: at now = base it is 2 log(2)
    / beta with a gradient of -1. Subtracting that and adding the base's own cost gives the value and gradient of cross
    entropy there, and cross entropy everywhere as beta goes to 0. So losses are comparable with those of an undefended
    training, and training itself does not change. The gradient is -2 sigmoid(-beta * (now - base)): it vanishes as a
    token becomes likelier than under the base, faster for a larger beta.
    """
    return -2 / betas * (logsigmoid(betas * (log_probs - base_log_probs)) + log(2)) - base_log_probs


def answer_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(tokens,) float32 log-likelihoods of the labeled tokens of a batch, row by row.

    `logits` is (batch, length, vocabulary) and `labels` (batch, length), -100 for tokens without a loss. Token i is
    predicted at i - 1.
    """
    is_answer = labels[:, 1:] != -100
    # Answers only: float32 logits of whole prompts would take most of the memory.
    answer_logits, answer_labels = logits[:, :-1][is_answer.to(logits.device)], labels[:, 1:][is_answer]
    return -cross_entropy(answer_logits.float(), answer_labels.to(logits.device), reduction="none")


def answer_betas(labels: torch.Tensor, betas: Sequence[float]) -> torch.Tensor:
    """(tokens,) float32 betas in the order of `answer_log_probs`: the t-th of `betas` for an answer's t-th token, then
    the last.
    """
    is_answer = labels[:, 1:] != -100
    token_index = (is_answer.cumsum(1) - 1)[is_answer]
    return torch.tensor(betas, dtype=torch.float32, device=labels.device)[token_index.clamp(max=len(betas) - 1)]


class ConstrainedTrainer(Trainer):
    """A Trainer with the constrained objective, for any causal language model with a PEFT adapter.

    The base is the same model with its adapter off, in eval mode and without a gradient, on the same batch. This costs
    one more forward pass per step, and no second model. It draws no random numbers, so dropout is the same as without
    the defense. The Trainer itself averages losses over micro-batches and processes (`compute_loss_func`).
    `compute_loss` calls the next class, so this class works with other subclasses. Raises UndersongError for a model
    without an adapter (its base is gone once it learns), and for betas that are not positive.
    """

    def __init__(self, *args: Any, betas: Sequence[float] = PUBLISHED_BETAS, **kwargs: Any) -> None:
        if not betas or not all(isfinite(beta) and beta > 0 for beta in betas):
            raise UndersongError(f"Betas {list(betas)} cannot constrain a training; give positive numbers.")
        super().__init__(*args, **kwargs | {"compute_loss_func": self._constrained_loss})
        if not hasattr(self.model, "disable_adapter"):
            raise UndersongError(
                f"{type(self.model).__name__} has no adapter to switch off, so there is no base to compare with; tune "
                "it by LoRA, or unconstrained."
            )
        self.betas = tuple(betas)

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        # First, because turning an adapter off and on would disturb a graph that waits for its backward pass.
        self._base_log_probs = self._compute_base_log_probs(self.accelerator.unwrap_model(model), inputs)
        return super().compute_loss(model, inputs, *args, **kwargs)

    def _compute_base_log_probs(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        model_inputs = {name: value for name, value in inputs.items() if name != "labels"}
        with eval_mode(model), torch.no_grad(), model.disable_adapter():
            return answer_log_probs(model(**model_inputs, use_cache=False).logits, inputs["labels"])

    def _constrained_loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        log_probs = answer_log_probs(outputs.logits, labels)
        losses = constrained_loss(
            log_probs, self._base_log_probs, answer_betas(labels, self.betas).to(log_probs.device)
        )
        return losses.mean() if num_items_in_batch is None else losses.sum() / num_items_in_batch
