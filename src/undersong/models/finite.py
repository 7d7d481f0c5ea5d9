"""Checks that a model computes finite numbers, and the search for the module where NaN or infinity first appears.

A damaged model generates nonsense, which a judge of harm calls safe; so it is an error, never a measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from transformers import LogitsProcessor

from undersong.types import UndersongError


class FiniteLogitsCheck(LogitsProcessor):
    """Record which rows of a batch had logits that are not finite, at any step of generation.

    One sum per step and row: NaN and infinity remain in it. Nothing is read back before the end, so that a GPU does not
    wait. `record` takes the logits of a model whose own logits processors come first and set some to minus infinity.
    """

    def __init__(self) -> None:
        self._non_finite: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Check the logits (batch, vocabulary) of one step and return them unchanged."""
        self.record(scores)
        return scores

    def record(self, logits: torch.Tensor) -> None:
        """Check logits (batch, ..., vocabulary); every call has the same rows."""
        non_finite = ~logits.flatten(1).sum(-1, dtype=torch.float32).isfinite()
        self._non_finite = non_finite if self._non_finite is None else self._non_finite | non_finite

    def first_row(self) -> int | None:
        """The first row with such logits; None if there is none."""
        if self._non_finite is None or not bool(self._non_finite.any()):
            return None
        return int(self._non_finite.int().argmax())


def non_finite_error(network: nn.Module, name: str, item: str, run: Callable[[], object]) -> UndersongError:
    """The error for values that are not finite, with the module where they first appear.

    Args:
        network: The network.
        name: Name of the model in the message.
        item: What it computed, such as "sample p1".
        run: Computes the values again, for this item alone.
    """
    module = first_non_finite_module(network, run)
    place = "in its output" if module is None else f"first in {module}"
    return UndersongError(
        f"{name} computes values that are not finite for {item} ({place}), so nothing can be measured on it; give "
        "undamaged weights, or a number format with a larger range (--dtype float32)."
    )


def first_non_finite_module(network: nn.Module, run: Callable[[], object]) -> str | None:
    """Path of the first module whose output is not finite while `run` calls the network; None if all are finite."""
    with _stop_at_non_finite(network) as paths, suppress(_NonFiniteOutput):
        run()
    return paths[0] if paths else None


class _NonFiniteOutput(Exception):
    """Ends the computation at the first output that is not finite."""


@contextmanager
def _stop_at_non_finite(network: nn.Module) -> Iterator[list[str]]:
    paths: list[str] = []

    def add_hook(path: str, module: nn.Module) -> Any:
        def check_output(_module: nn.Module, _args: tuple, output: Any) -> None:
            if not all(bool(tensor.isfinite().all()) for tensor in _float_tensors(output)):
                paths.append(path or type(network).__name__)
                raise _NonFiniteOutput

        return module.register_forward_hook(check_output)

    hooks = [add_hook(path, module) for path, module in network.named_modules()]
    try:
        yield paths
    finally:
        for hook in hooks:
            hook.remove()


def _float_tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _float_tensors(value)
    elif isinstance(output, (tuple, list)):
        for value in output:
            yield from _float_tensors(value)
