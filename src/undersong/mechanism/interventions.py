"""Hands on a decoder while it runs: take a direction out, put one in, put another model's state in its place.

Hooks live in context managers and come off whatever happens.  Places are as in `AudioModel.hidden`: 0 is the decoder's
input, i the output of layer i.  Knows a list of layers; does not know families, prompts or what a direction means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.types import UndersongError

if TYPE_CHECKING:
    from torch import nn

Change = Callable[[torch.Tensor], torch.Tensor]  # hidden states (batch, tokens, dim) -> the same, changed


@contextmanager
def changed(layers: Sequence[nn.Module], changes: Mapping[int, Change]) -> Iterator[None]:
    """Every pass inside goes on with what `changes[place]` makes of the states at `place`.

    Raises UndersongError for a place that the decoder does not have.
    """
    if wrong := [place for place in changes if not 0 <= place <= len(layers)]:
        raise UndersongError(f"The decoder has {len(layers)} layers, and no place {wrong[0]}; give 0 to {len(layers)}.")
    with ExitStack() as hooks:
        for place, change in changes.items():
            hook = _at_input(layers[0], change) if place == 0 else _at_output(layers[place - 1], change)
            hooks.callback(hook.remove)
        yield


def ablation(unit: np.ndarray) -> Change:
    """Takes out what lies along `unit` (dim,), at every token (Arditi et al. 2024, arXiv 2406.11717, eq. 4)."""

    def change(states: torch.Tensor) -> torch.Tensor:
        along = _like(unit, states)
        return states - (states @ along)[..., None] * along

    return change


def addition(vector: np.ndarray) -> Change:
    """Adds `vector` (dim,) at every token (there, eq. 3)."""
    return lambda states: states + _like(vector, states)


def replacement(rows: np.ndarray) -> Change:
    """Puts `rows` (batch, dim) in place of the states at the last token of a prompt: prompts of a batch end together.

    While a reply is written, one token at a time, nothing is replaced.
    """

    def change(states: torch.Tensor) -> torch.Tensor:
        if states.shape[1] == 1:
            return states
        if len(states) != len(rows):
            raise UndersongError(f"There are {len(rows)} states for a batch of {len(states)}; ask the same prompts.")
        out = states.clone()
        out[:, -1] = _like(rows, states)
        return out

    return change


def _like(values: np.ndarray, states: torch.Tensor) -> torch.Tensor:
    """On the states' device and in their dtype: layers of one model may lie on several."""
    return torch.as_tensor(values).to(states.device, states.dtype)


def _at_input(layer: nn.Module, change: Change) -> Any:
    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def _at_output(layer: nn.Module, change: Change) -> Any:
    def hook(_module: nn.Module, _args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return layer.register_forward_hook(hook)
