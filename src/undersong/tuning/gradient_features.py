"""Per-sample LoRA gradients of the base model, randomly projected to vectors (LESS, arXiv 2402.04333)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.embeddings import check_unique
from undersong.models.audio_lm import AudioModel
from undersong.models.lora import new_lora
from undersong.tuning.reproducibility import temporary_seed
from undersong.types import Embeddings, Prompt, Quarantined, UndersongError

BLOCK_PARAMETERS = 4096  # parameters per block of signs: 16 MB of float32 at dim 1024


def project_gradients(
    gradients: Mapping[str, torch.Tensor], dim: int | None, seed: int, block: int = BLOCK_PARAMETERS
) -> np.ndarray:
    """Project gradients to (samples, dim) float64 with random signs, or lay them side by side if `dim` is None.

    Each result is a sum with independent signs, divided by sqrt(dim) (Johnson-Lindenstrauss with signs: Achlioptas
    2003, doi 10.1016/S0022-0000(03)00025-4). It keeps a cosine c with a standard deviation of about (1 - c^2) /
    sqrt(dim), which is 0.03 at 1024 for unrelated samples. The signs are the same on every device and for every
    `block`. Each block's product is float32, their sum float64.

    Args:
        gradients: Tensor name -> (samples, parameters) float32, on any device.
        dim: Dimension of the projection; None: no projection, all parameters.
        seed: Seed of the signs.
        block: Parameters whose signs are held at a time.

    Raises:
        UndersongError: A `dim` below 1, tensors with different numbers of samples, or no tensor.
    """
    if dim is not None and dim < 1:
        raise UndersongError(f"Gradients cannot be projected to {dim} numbers; give a dim of at least 1.")
    counts = {len(value) for value in gradients.values()}
    if len(counts) != 1:
        raise UndersongError(f"Gradients of {sorted(counts)} samples cannot be projected together; give one number.")
    if dim is None:
        return np.concatenate([value.detach().float().cpu().double().numpy() for value in gradients.values()], axis=1)
    total = np.zeros((counts.pop(), dim))
    for name, value in gradients.items():
        flat = value.detach().float()
        for rows, signs in sign_blocks(name, flat.shape[1], dim, seed, block, flat.device):
            total += (flat[:, rows] @ signs).cpu().double().numpy()
    return total / np.sqrt(dim)


def sign_blocks(
    name: str, parameters: int, dim: int, seed: int, block: int = BLOCK_PARAMETERS, device: torch.device | str = "cpu"
) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield the signs of a tensor in blocks: rows of its (parameters, dim) matrix as a slice, and ±1 float32 (rows,
    dim).

    Signs are drawn as bits, and each row starts a new 32-bit word. So blocks of any size give the same matrix, and only
    an eighth of a byte per sign is copied to the device.

    Args:
        name: Name of the tensor, part of the seed.
        parameters: Number of its parameters.
        dim: Dimension of the projection.
        seed: Seed of the signs.
        block: Rows per block.
        device: Device of the signs.
    """
    digest = hashlib.sha256(name.encode()).digest()
    rng = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    shifts = torch.arange(8, dtype=torch.uint8, device=device)
    for start in range(0, parameters, block):
        rows = slice(start, min(start + block, parameters))
        words = rng.integers(0, 2**32, size=(rows.stop - start, -(-dim // 32)), dtype=np.uint32)
        packed = torch.from_numpy(words.astype("<u4", copy=False).view(np.uint8)).to(device)
        bits = (packed[:, :, None] >> shifts) & 1
        yield rows, bits.flatten(1)[:, :dim].float() * 2 - 1


MAX_BUFFERED_ENTRIES = 2**28  # gradient entries per projection: 1 GiB, 24 samples of a 7B model at rank 8
MAX_BUFFERED_SAMPLES = 64  # samples per projection, at most


def gradient_vectors(
    model: AudioModel,
    prompts: Sequence[Prompt],
    replies: Sequence[str],
    *,
    dim: int | None = 1024,
    rank: int = 8,
    alpha: int = 16,
    seed: int = 0,
    targets: Sequence[str] | None = None,
    normalize: bool = True,
    negate: bool = False,
    max_tokens: int | None = None,
) -> Embeddings:
    """Embed each sample as the gradient of its reply's loss with respect to a fresh LoRA, projected to `dim` numbers.

    Only the matrices B have a gradient in a fresh adapter (B = 0). It is s * (dL/dW) A^T: the gradient of the base's
    own weights, through the random A. So the vectors belong to the unchanged base: they are the first step of
    `finetune_decoder` with this `rank`, `alpha`, `targets` and `seed`. LESS first trains its adapter on a part of the
    pool, mostly for the moments of Adam. That is left out here, because screening must not depend on a training that
    itself reduces safety. Samples are passed one at a time, without padding, dropout or an update.

    The loss is the mean over the reply's tokens and its end token, or over the first `max_tokens` of them; a sum would
    only change the length of the vector.

    The replies of a reference harm set come from the caller. With *compliant* ones, a pool sample is close if a small
    step on it makes complying likelier. Much of that is the common form of the replies ("sure, here is"), so pool and
    harm set should not differ in form. With the model's *refusals* and `negate`, a sample is close if a step on it
    makes refusing less likely, whatever the model says instead. Neither sees beyond one small step, nor Adam's
    rescaling of it. Gradients are comparable only at one model, rank, alpha, seed, dim and targets. Two seeds show how
    much of a ranking is due to the random projection; a larger `dim` and `rank` reduce it (packaged organisms: rank
    correlation 0.8 at the defaults, 0.9 at 4096 and 32).

    Args:
        model: The model.
        prompts: The samples' prompts.
        replies: The replies to train on.
        dim: Dimension of the vectors; None: one number per parameter, which only a small model has memory for.
        rank: Rank of the LoRA.
        alpha: Scale of the LoRA.
        seed: Seed of the LoRA and the projection.
        targets: Full module paths; None: all linear layers of the decoder's blocks.
        normalize: Scale all vectors to length 1, so that centering does not follow the samples with the largest loss.
        negate: Negate the vectors, for replies that refuse.
        max_tokens: Number of the reply's first tokens whose loss counts; None: all.

    Returns:
        Vectors (n, dim) float32; `frames` counts the tokens that each loss averages. Samples without a reply, without a
            valid prompt, or with a zero or infinite gradient are quarantined.

    Raises:
        UndersongError: Different numbers of prompts and replies, a repeated id, or vectors that are all equal.
    """
    if len(prompts) != len(replies):
        raise UndersongError(f"{len(prompts)} prompts have {len(replies)} replies; give one reply per prompt.")
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
            gradient = _sample_gradient(model, prompt, reply, trainable, max_tokens)
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
    width = sum(parameter.numel() for parameter in trainable.values()) if dim is None else dim
    vectors = np.concatenate([np.zeros((0, width)), *projections])
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
    """Gradient of one sample: its id and reply tokens, and module path -> (parameters,) float32."""

    id_and_tokens: tuple[str, int]
    tensors: dict[str, torch.Tensor]


def _lora_b_parameters(peft_model: Any) -> dict[str, torch.nn.Parameter]:
    """Module path in the base -> its B. The As are frozen, because their gradient is zero anyway."""
    parameters = {}
    for name, parameter in peft_model.named_parameters():
        if ".lora_A." in name:
            parameter.requires_grad_(False)
        elif ".lora_B." in name:
            parameters[name.removeprefix("base_model.model.").partition(".lora_B.")[0]] = parameter
    return parameters


def _sample_gradient(
    model: AudioModel,
    prompt: Prompt,
    reply: str,
    trainable: dict[str, torch.nn.Parameter],
    max_tokens: int | None,
) -> _SampleGradient | Quarantined:
    id = prompt.sample.id
    if not reply:
        return Quarantined(id, "no reply to take the gradient of")
    try:
        batch = model.batch([prompt], [reply])
    except UndersongError as error:
        return Quarantined(id, str(error))
    if max_tokens is not None:
        labels = batch["labels"]
        labels[(labels != -100).cumsum(1) > max_tokens] = -100
    with torch.enable_grad():
        loss = model.model(**batch, use_cache=False).loss
        # Not `backward`, so no gradient stays on a parameter. Experts that were not used have zeros.
        gradients = torch.autograd.grad(loss, list(trainable.values()), materialize_grads=True)
    tensors = {path: value.detach().float().flatten() for path, value in zip(trainable, gradients)}
    # On the CPU, because a model may lie on several devices.
    largest = torch.stack([value.abs().max().cpu() for value in tensors.values()]).max()
    if not torch.isfinite(largest):  # max propagates NaN
        return Quarantined(id, "the gradient is not finite")
    if not largest:
        return Quarantined(id, "the gradient is zero: its reply teaches the model nothing")
    return _SampleGradient((id, int((batch["labels"] != -100).sum())), tensors)


def _project_buffer(buffer: Sequence[_SampleGradient], dim: int | None, seed: int) -> np.ndarray:
    paths = buffer[0].tensors
    return project_gradients(
        {path: torch.stack([gradient.tensors[path] for gradient in buffer]) for path in paths}, dim, seed
    )
