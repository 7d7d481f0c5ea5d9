"""Tables with sortable number cells, and panels that make up a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from undersong.pages import formatting


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. `key` explains the numbers if its arms are numbered."""

    title: str
    picture: Markup
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PanelGroup:
    """Panels under one heading; the heading is empty where a figure has one group only."""

    title: str
    panels: tuple[Panel, ...]


class NumberCell(NamedTuple):
    """Number in a table cell: its text, the value for sorting and saving, and its interval if it has one."""

    text: str
    value: float | None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Table:
    """Table with column names in `head`. The first `names` columns are text, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str | NumberCell, ...], ...]
    names: int = 1


def percent_cell(
    value: float | None, low: float | None = None, high: float | None = None, suffix: str = ""
) -> NumberCell:
    """Return a cell for a share in a column headed in percent, such as '80.9 [76.1, 85.3]'.

    Args:
        value: Share in [0, 1] (a difference may be negative); None if not measured.
        low: Lower end of its interval, or None.
        high: Upper end of its interval, or None.
        suffix: Text after the number.
    """
    text = " ".join(filter(None, (formatting.percent_number(value), formatting.bracket(low, high), suffix)))
    return NumberCell(text, *(None if bound is None else 100 * bound for bound in (value, low, high)))


def number_cell(
    value: float | None, low: float | None = None, high: float | None = None, decimals: int = 3
) -> NumberCell:
    """Return a cell for a number that is no share, such as '0.412 [0.351, 0.473]'.

    Args:
        value: The number; None if not measured.
        low: Lower end of its interval, or None.
        high: Upper end of its interval, or None.
        decimals: Number of decimals shown.
    """
    center, *ends = (formatting.decimal(bound, decimals) for bound in (value, low, high))
    interval = f"[{ends[0]},{formatting.NBSP}{ends[1]}]" if low is not None and high is not None else ""
    return NumberCell(" ".join(filter(None, (center, interval))), value, low, high)


def training_label(modality: str | None) -> str:
    """Return 'Trained on audio', or 'Trained' if the modality is unknown."""
    return f"Trained on {modality}" if modality else "Trained"


def jitter_offsets(names: Sequence[str], width: float) -> Mapping[str, float]:
    """Pixels that set marks with the same x side by side, in the order of `names`."""
    middle = (len(names) - 1) / 2
    return {name: (i - middle) * width for i, name in enumerate(names)}
