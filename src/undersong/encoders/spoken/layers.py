"""Which layers of a network a vector is made of.  Knows numbers of layers, not networks.

Layer 0 is what enters the first block, layer i what leaves the i-th; `last`, and the highest layer, is the network's
output, after its final norm where it has one.  A mix is the plain mean of the named layers, frame by frame: learned
weights would need a task.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from undersong.types import UndersongError

if TYPE_CHECKING:
    import torch

FORMS = "last, a number such as 9, mix:all, mix:4-8 or mix:4+8+12"


@dataclass(frozen=True, slots=True)
class Layers:
    """`chosen`: numbers of layers, ascending; empty: the network's output.  `every`: all of them."""

    chosen: tuple[int, ...] = ()
    every: bool = False

    @property
    def plain(self) -> bool:
        """Whether the network's output is all that is asked for."""
        return not self.chosen and not self.every

    @property
    def written(self) -> str:
        """The one spelling of these layers."""
        if self.every:
            return "mix:all"
        if len(self.chosen) < 2:
            return str(self.chosen[0]) if self.chosen else "last"
        first, final = self.chosen[0], self.chosen[-1]
        if len(self.chosen) > 2 and self.chosen == tuple(range(first, final + 1)):
            return f"mix:{first}-{final}"
        return "mix:" + "+".join(map(str, self.chosen))

    def highest(self, layers: int, who: str) -> int:
        """How many of a network's `layers` blocks have to run.  Raises UndersongError for one that it does not have."""
        if self.chosen and self.chosen[-1] > layers:
            raise UndersongError(
                f"{who} has the layers 0 to {layers} and no layer {self.chosen[-1]}; take one of them."
            )
        return self.chosen[-1] if self.chosen else layers

    def of(self, states: Sequence[torch.Tensor], output: torch.Tensor) -> torch.Tensor:
        """(batch, frames, dim): from the states of every layer that ran (0 first) and the network's output.

        The last state is taken to be the output: transformers' classes differ in whether it is told before or after the
        final norm.
        """
        if self.plain:
            return output
        import torch

        told = [*states[:-1], output]
        picked = told if self.every else [told[layer] for layer in self.chosen]
        return picked[0] if len(picked) == 1 else torch.stack(tuple(picked)).mean(dim=0)


OUTPUT = Layers()  # the default


def parse_layers(said: int | str | None) -> Layers:
    """None or `last`: the output; N; `mix:all`; `mix:A-B`; `mix:A+B+C`.  Raises UndersongError for anything else."""
    text = "last" if said is None else str(said).strip()
    if text == "last":
        return Layers()
    if text == "mix:all":
        return Layers(every=True)
    if re.fullmatch(r"[0-9]{1,4}", text):
        return Layers((int(text),))
    if match := re.fullmatch(r"mix:([0-9]{1,4})-([0-9]{1,4})", text):
        first, final = int(match[1]), int(match[2])
        if first <= final:
            return Layers(tuple(range(first, final + 1)))
    elif re.fullmatch(r"mix:[0-9]{1,4}(\+[0-9]{1,4})*", text):
        numbers = [int(number) for number in text.removeprefix("mix:").split("+")]
        if len(set(numbers)) == len(numbers):
            return Layers(tuple(sorted(numbers)))
    raise UndersongError(f"There are no layers {text!r}; write {FORMS}.")
