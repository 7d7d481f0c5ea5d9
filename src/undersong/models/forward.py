"""What is put on a network for one call and taken off again: greedy decoding, and hooks for what layers give.

Knows transformers' networks; does not know prompts or samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig

if TYPE_CHECKING:
    import torch
    from torch import nn


@contextmanager
def greedy_decoding(base: Any, max_new_tokens: int, pad_token_id: int, eos_token_ids: Sequence[int]) -> Iterator[None]:
    """Greedy and nothing else, up to `limit` new tokens: what a checkpoint's own generation config says, down to the
    tokens it suppresses, would make models decode differently (DESIGN rule 8)."""
    original = base.generation_config
    base.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad_token_id, eos_token_id=list(eos_token_ids)
    )
    try:
        yield
    finally:
        base.generation_config = original


@contextmanager
def record_last_token_states(layers: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Collects (batch, dim) at the last position: layer 0's input, then every layer's output."""
    states: list[torch.Tensor] = []

    def record_input(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        states.append((args[0] if args else kwargs["hidden_states"])[:, -1].clone())  # a view would keep all tokens

    def record_output(_module: nn.Module, _args: tuple, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output)[:, -1].clone())

    hooks = [layers[0].register_forward_pre_hook(record_input, with_kwargs=True)]
    hooks += [layer.register_forward_hook(record_output) for layer in layers]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()
