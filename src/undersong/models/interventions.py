"""Forward hooks that edit the decoder's residual stream: ablate a direction, add a vector, or patch in other
activations.

An intervention has a site: a layer (0 is the decoder's input, i the output of layer i), or the outputs of the attention
and the MLP inside one block before they are added to the residual stream.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from undersong.types import UndersongError

if TYPE_CHECKING:
    from torch import nn

Intervention = Callable[[torch.Tensor], torch.Tensor]  # hidden states (batch, tokens, dim) -> changed states


@dataclass(frozen=True, slots=True)
class SublayerOutputs:
    """Site of an intervention: the outputs of the attention and of the MLP of one layer; 1 is the first layer."""

    layer: int


Site = int | SublayerOutputs


@contextmanager
def apply_interventions(layers: Sequence[nn.Module], interventions: Mapping[Site, Intervention]) -> Iterator[None]:
    """Change the hidden states of every forward pass inside the context.

    `interventions` maps a site to a function of the hidden states there.

    Raises:
        UndersongError: The decoder does not have such a layer, or a block has no attention or no MLP to hook.
    """
    for site in interventions:
        number, first = (site.layer, 1) if isinstance(site, SublayerOutputs) else (site, 0)
        if not first <= number <= len(layers):
            raise UndersongError(
                f"The decoder has {len(layers)} layers, and no layer {number}; give {first} to {len(layers)}."
            )
    with ExitStack() as hooks:
        for site, intervention in interventions.items():
            for hook in _register_hooks(layers, site, intervention):
                hooks.callback(hook.remove)
        yield


def _register_hooks(layers: Sequence[nn.Module], site: Site, intervention: Intervention) -> Iterator[Any]:
    if isinstance(site, SublayerOutputs):
        for module in block_sublayers(layers[site.layer - 1]):
            yield _hook_output(module, intervention)
    elif site == 0:
        yield _hook_input(layers[0], intervention)
    else:
        yield _hook_output(layers[site - 1], intervention)


def block_sublayers(block: nn.Module) -> list[nn.Module]:
    """Return the modules of a decoder block that write to the residual stream: its attention and its MLP.

    They are found by structure: the direct children that hold a weight matrix. Norms hold vectors, and dropout holds
    nothing. A mixture of experts is one such child.

    Raises:
        UndersongError: No such child is an attention, or there is no other one.
    """
    sublayers = {
        name: child
        for name, child in block.named_children()
        if any(parameter.dim() > 1 for parameter in child.parameters())
    }
    attention = [name for name, child in sublayers.items() if "attention" in type(child).__name__.lower()]
    if not attention or len(attention) == len(sublayers):
        missing = "no MLP" if attention else "no attention"
        raise UndersongError(
            f"A {type(block).__name__} has {missing} among its modules ({', '.join(sublayers) or 'none'}), so a "
            "direction cannot be ablated from it; use a decoder whose blocks hold an attention and an MLP."
        )
    return list(sublayers.values())


def ablation(unit: np.ndarray) -> Intervention:
    """Intervention that removes the component along `unit` (dim,) at every token (Arditi et al. 2024, arXiv 2406.11717,
    eq. 4).

    Removed at one site only, the component can be written again right behind it; `ablate_direction` names all sites.
    """

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
