"""Context managers around a forward pass: greedy decoding, and hooks that record activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import GenerationConfig

from undersong.models.families import ActivationView
from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch
    from torch import nn


MAX_TOKEN_ID = 2**31


@contextmanager
def greedy_decoding(base: Any, max_new_tokens: int, pad_token_id: int, eos_token_ids: Sequence[int]) -> Iterator[None]:
    """Replace a model's generation config by plain greedy decoding (rule 8 in docs/contributing/rules.md).

    A checkpoint's own config, down to the tokens that it suppresses, would make models decode differently.

    Args:
        base: The transformers model.
        max_new_tokens: Largest number of new tokens.
        pad_token_id: Padding token.
        eos_token_ids: Tokens that end a reply.
    """
    original = base.generation_config
    base.generation_config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=pad_token_id, eos_token_id=list(eos_token_ids)
    )
    try:
        yield
    finally:
        base.generation_config = original


def published_end_ids(base: Any) -> list[int]:
    """Ids that the checkpoint's generation config ends a reply with. Raises UndersongError for what is no token id."""
    value = getattr(getattr(base, "generation_config", None), "eos_token_id", None)
    ids = [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
    for token_id in ids:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < MAX_TOKEN_ID:
            raise UndersongError(
                f"generation_config.json has the eos_token_id {str(token_id)[:60]!r}, which is no token id; give the "
                "checkpoint's own file."
            )
    return ids


@contextmanager
def record_last_token_states(layers: Sequence[nn.Module]) -> Iterator[list[torch.Tensor]]:
    """Collect states (batch, dim) at the last position: layer 0's input, then every layer's output.

    The forward pass ends there, so no logits are computed: those of 128 prompts would take gigabytes.
    """
    states: list[torch.Tensor] = []

    def record_input(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        states.append((args[0] if args else kwargs["hidden_states"])[:, -1].clone())  # a view would keep all tokens

    def record_output(_module: nn.Module, _args: tuple, output: Any) -> None:
        states.append((output[0] if isinstance(output, tuple) else output)[:, -1].clone())

    def stop(_module: nn.Module, _args: tuple, _output: Any) -> None:
        raise StopForward

    hooks = [layers[0].register_forward_pre_hook(record_input, with_kwargs=True)]
    hooks += [layer.register_forward_hook(record_output) for layer in layers]
    hooks.append(layers[-1].register_forward_hook(stop))
    try:
        with suppress(StopForward):
            yield states
    finally:
        for hook in hooks:
            hook.remove()


class StopForward(Exception):
    """Ends a forward pass once the activations are recorded."""


@contextmanager
def record_decoder_input(decoder: Any, activations: dict[str, torch.Tensor]) -> Iterator[None]:
    """Record the input (batch, tokens, dim) of layer 0, and stop the forward pass there."""

    def record_input(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        activations["decoder"] = args[0] if args else kwargs["hidden_states"]
        raise StopForward

    hook = decoder.layers[0].register_forward_pre_hook(record_input, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def record_views(
    base: Any, views: Mapping[str, ActivationView], activations: dict[str, torch.Tensor]
) -> Iterator[None]:
    """Record the states of every view."""

    def add_hook(name: str, view: ActivationView) -> Any:
        def record_output(_module: nn.Module, args: tuple, output: Any) -> None:
            state = _hidden_states(output) if view.argument is None else args[view.argument]
            activations[name] = state.detach()

        return base.get_submodule(view.path).register_forward_hook(record_output)

    hooks = [add_hook(name, view) for name, view in views.items()]
    try:
        yield
    finally:
        for record_output in hooks:
            record_output.remove()


def _hidden_states(output: Any) -> torch.Tensor:
    """The hidden states of a module's output."""
    states: Any = output.last_hidden_state if hasattr(output, "last_hidden_state") else output
    hidden_states: torch.Tensor = states[0] if isinstance(states, tuple) else states
    return hidden_states
