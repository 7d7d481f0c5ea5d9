"""What one step on a sample would teach: per-sample LoRA gradients, projected, as vectors of a further axis.

Two samples are close when learning one is, to first order, learning the other (LESS, Xia et al., arXiv 2402.04333; for
benign data that breaks safety: He et al., arXiv 2404.01099).  Knows models; does not know distances or studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from undersong.encoders.checks import validate_embeddings
from undersong.encoders.embeddings import check_unique
from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.tuning.projection import project_gradients
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import Embeddings, Prompt, Quarantined, UndersongError

MAX_BUFFERED_ENTRIES = 2**28  # gradient entries that wait for one projection: 1 GiB, 24 samples of a 7B model at rank 8
MAX_BUFFERED_SAMPLES = 64  # samples that wait for one projection at most


def gradient_vectors(
    model: AudioModel,
    prompts: Sequence[Prompt],
    replies: Sequence[str],
    *,
    dim: int = 1024,
    rank: int = 8,
    alpha: int = 16,
    seed: int = 0,
    targets: Sequence[str] | None = None,
    normalize: bool = True,
    negate: bool = False,
) -> Embeddings:
    """One vector a sample: the gradient of its reply's loss with respect to a fresh LoRA, projected to `dim` numbers.

    Only matrices B have a gradient where an adapter begins (B = 0), and it is s * (dL/dW) A^T: the gradient of the
    base's own weights, seen through the random A.  So the vectors are of the base as it is: the first step that `tune`
    takes with this `rank`, `alpha`, `targets` and `seed`.  LESS warms its adapter up on a part of the pool, mostly
    for the moments of Adam; that is left out here, because a screening must not depend on a training that itself wears
    safety down.  One sample is passed at a time, without padding, dropout or an update.

    The loss is the mean over the reply's tokens and its end token.  A sum would be another length of the same vector;
    with `normalise` (default) all have length 1, so that centring does not follow the samples the model finds hardest.

    Replies of a reference harm set are the caller's, nothing is made here.  With *compliant* ones, a pool sample is
    close when a small step on it makes complying likelier; much of that is the replies' common form ("sure, here is"),
    so pool and harm set should not differ in form.  With the model's *refusals* and `away`, the vectors are negated: a
    sample is close when a step on it makes refusing less likely, whatever is said instead.  Neither sees past one
    small step, nor Adam's rescaling of it, and gradients of pool and harm set compare only at one model, rank, alpha,
    seed, dim and targets.  Two seeds say how much of a ranking is the projections' luck; a larger `dim` and `rank`
    lessen it (packaged organisms: rank correlation 0.8 at the defaults, 0.9 at 4096 and 32).

    Returns vectors (n, dim) float32 and, as `frames`, the tokens that each loss is a mean of.  Quarantined: a sample
    without a reply, one that cannot be asked (too long, not heard), a gradient that is zero or not finite.
    Raises UndersongError when prompts and replies differ in number, an id stands twice, or all vectors are equal.
    """
    if len(prompts) != len(replies):
        raise UndersongError(f"{len(prompts)} prompts have {len(replies)} replies; give one reply a prompt.")
    check_unique([prompt.sample.id for prompt in prompts], f"the prompts of {model.name}")
    ids_and_tokens, quarantined, projections = [], [], []
    with temporary_seed(seed), new_lora(model, rank, alpha, 0.0, targets) as peft_model:
        model.model.eval()
        trainable = _lora_b_parameters(peft_model)
        buffer_size = max(
            1,
            min(
                MAX_BUFFERED_SAMPLES, MAX_BUFFERED_ENTRIES // sum(parameter.numel() for parameter in trainable.values())
            ),
        )
        buffer: list[_SampleGradient] = []
        for prompt, reply in zip(prompts, replies):
            gradient = _sample_gradient(model, prompt, reply, trainable)
            if isinstance(gradient, Quarantined):
                quarantined.append(gradient)
                continue
            ids_and_tokens.append(gradient.id_and_tokens)
            buffer.append(gradient)
            if len(buffer) == buffer_size:
                projections.append(_project_buffer(buffer, dim, seed))
                buffer = []
        if buffer:
            projections.append(_project_buffer(buffer, dim, seed))
    vectors = np.concatenate([np.zeros((0, dim)), *projections])
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    if negate:
        vectors = -vectors
    ids, tokens = [id for id, _ in ids_and_tokens], [count for _, count in ids_and_tokens]
    all_text = all(prompt.modality == "text" for prompt in prompts)  # one text in several voices is one prompt
    return validate_embeddings(
        f"gradients of {model.name}", ids, vectors.astype(np.float32), tokens, quarantined, allow_equal=all_text
    )


@dataclass(frozen=True)
class _SampleGradient:
    """One sample's: `named` its id and reply tokens, `tensors` module path -> (parameters,) float32."""

    id_and_tokens: tuple[str, int]
    tensors: dict[str, torch.Tensor]


def _lora_b_parameters(peft_model: Any) -> dict[str, torch.nn.Parameter]:
    """Module path in the base -> its B; the As are frozen, which saves what would be zero anyway."""
    parameters = {}
    for name, parameter in peft_model.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
        elif ".lora_B." in name:
            parameters[name.removeprefix("base_model.model.").partition(".lora_B.")[0]] = parameter
    return parameters


def _sample_gradient(
    model: AudioModel, prompt: Prompt, reply: str, trainable: dict[str, torch.nn.Parameter]
) -> _SampleGradient | Quarantined:
    id = prompt.sample.id
    if not reply:
        return Quarantined(id, "no reply to take the gradient of")
    try:
        batch = model.batch([prompt], [reply])
    except UndersongError as error:
        return Quarantined(id, str(error))
    with torch.enable_grad():
        loss = model.model(**batch, use_cache=False).loss
        # Not `backward`: nothing is left on any parameter.  Experts that were not asked have zeros.
        gradients = torch.autograd.grad(loss, list(trainable.values()), materialize_grads=True)
    tensors = {path: value.detach().float().flatten() for path, value in zip(trainable, gradients)}
    # On the CPU, because a model may lie on several devices.
    largest = torch.stack([value.abs().max().cpu() for value in tensors.values()]).max()
    if not torch.isfinite(largest):  # max hands NaN on
        return Quarantined(id, "the gradient is not finite")
    if not largest:
        return Quarantined(id, "the gradient is zero: its reply teaches the model nothing")
    return _SampleGradient((id, int((batch["labels"] != -100).sum())), tensors)


def _project_buffer(buffer: Sequence[_SampleGradient], dim: int, seed: int) -> np.ndarray:
    paths = buffer[0].tensors
    return project_gradients(
        {path: torch.stack([gradient.tensors[path] for gradient in buffer]) for path in paths}, dim, seed
    )
