"""Proof that a part of a model did not change: hashes of parameters and buffers (DESIGN rule 5)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import nn


def module_hashes(modules: Mapping[str, nn.Module]) -> dict[str, str]:
    """`path/parameters` and `path/buffers` -> SHA-256 over names, dtypes, shapes and raw bytes.

    Buffers are hashed too: a BatchNorm that was left in training mode drifts although its weights are frozen.  LoRA
    wrappers do not reach encoder or projector, so names are the same before and after.
    """
    hashes = {}
    for path, module in modules.items():
        for kind, tensors in (("parameters", module.named_parameters()), ("buffers", module.named_buffers())):
            digest = hashlib.sha256()
            for name, tensor in sorted(tensors):
                value = tensor.detach().cpu().contiguous()
                digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}|".encode())
                digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
            hashes[f"{path}/{kind}"] = digest.hexdigest()
    return hashes
