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
    """(tokens,) loss of answer tokens with log-likelihoods `now` and, under the base, `then`; one beta each.

    The paper's -2/beta * log sigmoid(beta * (now - then)), moved by a constant: at now = then that is 2 log(2) / beta
    with a gradient of -1, so taking it off and the base's own cost -then on gives the cross entropy's value and
    gradient there, and cross entropy everywhere as beta falls to 0.  The losses of a log thus compare with those of an
    undefended training, and nothing that is learned changes.  The gradient is -2 sigmoid(-beta * (now - then)): it
    dies out as a token becomes likelier than it was, the sooner the larger its beta.
    """
    return -2 / betas * (logsigmoid(betas * (log_probs - base_log_probs)) + log(2)) - base_log_probs


def answer_log_probs(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(tokens,) float32 log-likelihoods of the labelled tokens of a batch, row by row.

    logits (batch, length, words), labels (batch, length) with -100 where nothing is learned; token i is said at i - 1.
    """
    is_answer = labels[:, 1:] != -100
    # The answers alone: float32 logits of whole prompts would be most of the memory.
    answer_logits, answer_labels = logits[:, :-1][is_answer.to(logits.device)], labels[:, 1:][is_answer]
    return -cross_entropy(answer_logits.float(), answer_labels.to(logits.device), reduction="none")


def answer_betas(labels: torch.Tensor, betas: Sequence[float]) -> torch.Tensor:
    """(tokens,) float32, as `answer_logs` has them: the t-th of `betas` for an answer's t-th token, then the last."""
    is_answer = labels[:, 1:] != -100
    token_index = (is_answer.cumsum(1) - 1)[is_answer]
    return torch.tensor(betas, dtype=torch.float32, device=labels.device)[token_index.clamp(max=len(betas) - 1)]


class ConstrainedTrainer(Trainer):
    """A Trainer with this objective, for any causal language model under a PEFT adapter.

    The base is the same model with its adapter off, in eval mode and without a gradient, on the same batch: one more
    forward pass a step, and no second model.  It draws no random numbers, so dropout falls as it does undefended.  How
    a loss is counted over micro-batches and processes is the Trainer's own (`compute_loss_func`).  `compute_loss` hands
    on to the next class, so it goes with other subclasses.
    Errors: a model without an adapter (its base is gone once it learns), betas that are not positive numbers.
    """

    def __init__(self, *args: Any, betas: Sequence[float] = PUBLISHED_BETAS, **kwargs: Any) -> None:
        if not betas or not all(isfinite(beta) and beta > 0 for beta in betas):
            raise UndersongError(f"Betas {list(betas)} cannot constrain a training; give positive numbers.")
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "disable_adapter"):
            raise UndersongError(
                f"{type(self.model).__name__} has no adapter to take off, so there is no base to compare with; tune "
                "it by LoRA, or unconstrained."
            )
        self.betas = tuple(betas)
        self.compute_loss_func = self._constrained_loss

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
