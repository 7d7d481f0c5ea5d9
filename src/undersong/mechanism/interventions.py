"""Forward hooks that edit the decoder's residual stream: ablate a direction, add a vector, or patch in other
activations. Layer 0 is the decoder's input, i the output of layer i.
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

Intervention = Callable[[torch.Tensor], torch.Tensor]  # hidden states (batch, tokens, dim) -> changed states


@contextmanager
def apply_interventions(layers: Sequence[nn.Module], interventions: Mapping[int, Intervention]) -> Iterator[None]:
    """Change the hidden states of every forward pass inside the context.

    `interventions` maps a layer to a function of its hidden states.

    Raises:
        UndersongError: The decoder does not have such a layer.
    """
    if invalid := [layer for layer in interventions if not 0 <= layer <= len(layers)]:
        raise UndersongError(
            f"The decoder has {len(layers)} layers, and no layer {invalid[0]}; give 0 to {len(layers)}."
        )
    with ExitStack() as hooks:
        for layer, intervention in interventions.items():
            hook = _hook_input(layers[0], intervention) if layer == 0 else _hook_output(layers[layer - 1], intervention)
            hooks.callback(hook.remove)
        yield


def ablation(unit: np.ndarray) -> Intervention:
    """Intervention that removes the component along `unit` (dim,) at every token (Arditi et al. 2024, arXiv 2406.11717,
    eq. 4)."""

    def ablate(states: torch.Tensor) -> torch.Tensor:
        unit_tensor = _match_states(unit, states)
        return states - (states @ unit_tensor)[..., None] * unit_tensor

    return ablate


def addition(vector: np.ndarray) -> Intervention:
    """Intervention that adds `vector` (dim,) at every token (Arditi et al. 2024, eq. 3)."""
    return lambda states: states + _match_states(vector, states)


def replacement(rows: np.ndarray) -> Intervention:
    """Intervention that replaces the states at a prompt's last token by `rows` (batch, dim).

    Prompts of a batch end at the same position. While a reply is generated, one token at a time, nothing is replaced.
    """

    def replace(states: torch.Tensor) -> torch.Tensor:
        if states.shape[1] == 1:
            return states
        if len(states) != len(rows):
            raise UndersongError(f"There are {len(rows)} states for a batch of {len(states)}; use the same prompts.")
        patched = states.clone()
        patched[:, -1] = _match_states(rows, states)
        return patched

    return replace


def _match_states(values: np.ndarray, states: torch.Tensor) -> torch.Tensor:
    """Move values to the states' device and dtype: layers of one model may be on several devices."""
    return torch.as_tensor(values).to(states.device, states.dtype)


def _hook_input(layer: nn.Module, intervention: Intervention) -> Any:
    def hook(_module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        if args:
            return (intervention(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": intervention(kwargs["hidden_states"])}

    return layer.register_forward_pre_hook(hook, with_kwargs=True)


def _hook_output(layer: nn.Module, intervention: Intervention) -> Any:
    def hook(_module: nn.Module, _args: tuple, output: Any) -> Any:
        if isinstance(output, tuple):
            return (intervention(output[0]), *output[1:])
        return intervention(output)

    return layer.register_forward_hook(hook)
