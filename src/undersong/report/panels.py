"""A figure of several plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot.  `key`: what its numbers mean, where its arms are numbered."""

    title: str
    picture: Markup
    key: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """Panels under one heading; the heading is empty where a figure has one group only."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """`head` names the columns; a cell is text.  The first `names` columns are words, the others numbers."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


def trained(modality: str | None) -> str:
    return f"Trained on {modality}" if modality else "Trained"


def jitter(names: Sequence[str], width: float) -> Mapping[str, float]:
    """Pixels that set marks with the same x side by side, in the order of `names`."""
    middle = (len(names) - 1) / 2
    return {name: (i - middle) * width for i, name in enumerate(names)}
