"""Selection of a network's layers: the output, one layer, or the mean of several.

Layer 0 is the input of the first block, layer i the output of block i; the highest layer is the output after the
final norm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

LAYER_FORMATS = "last, a number such as 9, mix:all, mix:4-8 or mix:4+8+12"


@dataclass(frozen=True, slots=True)
class LayerSelection:
    """A selection of layers: their `indices`, ascending (empty: the network's output), or `all_layers`."""

    indices: tuple[int, ...] = ()
    all_layers: bool = False

    @property
    def is_output(self) -> bool:
        """True if only the network's output is selected."""
        return not self.indices and not self.all_layers

    @property
    def canonical(self) -> str:
        """The canonical spelling of these layers."""
        if self.all_layers:
            return "mix:all"
        if len(self.indices) < 2:
            return str(self.indices[0]) if self.indices else "last"
        first, final = self.indices[0], self.indices[-1]
        if len(self.indices) > 2 and self.indices == tuple(range(first, final + 1)):
            return f"mix:{first}-{final}"
        return "mix:" + "+".join(map(str, self.indices))

    def required_layers(self, layers: int, model_name: str) -> int:
        """Number of the network's `layers` blocks that have to run. Raises UndersongError for a layer that does not
        exist.
        """
        if self.indices and self.indices[-1] > layers:
            raise UndersongError(
                f"{model_name} has the layers 0 to {layers} and no layer {self.indices[-1]}; take one of them."
            )
        return self.indices[-1] if self.indices else layers

    def combine(self, states: Sequence[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        """Combine the states of all layers that ran (0 first) and the network's output to (batch, frames, dim).

        The output replaces the last state, because transformers' classes differ in whether that one is taken before or
        after the final norm.
        """
        if self.is_output:
            return output
        import torch

        layer_states = [*states[:-1], output]
        selected = layer_states if self.all_layers else [layer_states[layer] for layer in self.indices]
        return selected[0] if len(selected) == 1 else torch.stack(tuple(selected)).mean(dim=0)


OUTPUT_LAYER = LayerSelection()  # the default


def parse_layers(value: int | str | None) -> LayerSelection:
    """Parse a layer selection: None or `last` (the output), N, `mix:all`, `mix:A-B` or `mix:A+B+C`.

    Raises UndersongError for anything else.
    """
    text = "last" if value is None else str(value).strip()
    if text == "last":
        return LayerSelection()
    if text == "mix:all":
        return LayerSelection(all_layers=True)
    if re.fullmatch(r"[0-9]{1,4}", text):
        return LayerSelection((int(text),))
    if match := re.fullmatch(r"mix:([0-9]{1,4})-([0-9]{1,4})", text):
        first, final = int(match[1]), int(match[2])
        if first <= final:
            return LayerSelection(tuple(range(first, final + 1)))
    elif re.fullmatch(r"mix:[0-9]{1,4}(\+[0-9]{1,4})*", text):
        numbers = [int(number) for number in text.removeprefix("mix:").split("+")]
        if len(set(numbers)) == len(numbers):
            return LayerSelection(tuple(sorted(numbers)))
    raise UndersongError(f"There are no layers {text!r}; write {LAYER_FORMATS}.")
