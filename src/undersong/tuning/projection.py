"""Random projection of gradients to a few numbers that keep their cosines.  Knows tensors by name; no model, no loss.

Every tensor has a stream of signs of its own, drawn in blocks: the matrix (parameters, dim), 45 GB of float32 for a
rank-8 adapter of a 7B model, is never there, and what one tensor adds does not depend on which others there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
import torch

from undersong.types import UndersongError

BLOCK_PARAMETERS = 4096  # parameters whose signs are held at a time: 16 MB of float32 at dim 1024


def project_gradients(
    gradients: Mapping[str, torch.Tensor], dim: int, seed: int, block: int = BLOCK_PARAMETERS
) -> np.ndarray:
    """(samples, dim) float64 of `gradients`: tensor name -> (samples, parameters) float32, on any device.

    Sums with independent signs, over sqrt(dim) (Johnson-Lindenstrauss with signs: Achlioptas 2003, doi
    10.1016/S0022-0000(03)00025-4): a cosine c is kept with a standard deviation of about (1 - c^2) / sqrt(dim), 0.03 at
    1024 for unrelated samples.  The signs are the same on every device and for every `block`; each block's product is
    float32, their sum float64.
    Raises UndersongError for a dim below 1, and when tensors have different numbers of samples, or none is given.
    """
    if dim < 1:
        raise UndersongError(f"Gradients cannot be projected to {dim} numbers; give a dim of at least 1.")
    counts = {len(value) for value in gradients.values()}
    if len(counts) != 1:
        raise UndersongError(f"Gradients of {sorted(counts)} samples cannot be projected together; give one number.")
    total = np.zeros((counts.pop(), dim))
    for name, value in gradients.items():
        flat = value.detach().float()
        for rows, signs in sign_blocks(name, flat.shape[1], dim, seed, block, flat.device):
            total += (flat[:, rows] @ signs).cpu().double().numpy()
    return total / np.sqrt(dim)


def sign_blocks(
    name: str, parameters: int, dim: int, seed: int, block: int = BLOCK_PARAMETERS, device: torch.device | str = "cpu"
) -> Iterator[tuple[slice, torch.Tensor]]:
    """The signs of a tensor: rows of its (parameters, dim) matrix as a slice and ±1 float32 (rows, dim), in order.

    Drawn as bits, a row starting a new 32-bit word: so blocks of any size give the same matrix, and a device gets an
    eighth of a byte a sign.
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
