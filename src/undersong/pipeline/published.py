"""The figures of the published study, copied with their source, so that ours can stand beside them.

From `data/paper/figures.json`, whose head says where they come from and what its columns mean.  Computes nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Figure:
    """One cell of a published table: a percentage, of one run.  `study`: the file of studies/paper that stands for it.

    `possible`: whether a whole number of all prompts gives it; None where nobody checked (usefulness).
    """

    study: str
    family: str
    condition: str
    fraction: int | None  # percent of the pool
    set: str
    percent: float
    possible: bool | None


@cache
def _held() -> dict[str, Any]:
    text = resources.files("undersong").joinpath("data/paper/figures.json").read_text(encoding="utf-8")
    held: dict[str, Any] = json.loads(text)
    return held


def figures() -> tuple[Figure, ...]:
    """Every cell, table by table."""
    return tuple(Figure(*row) for row in _held()["rows"])


def source() -> str:
    """Where they were printed."""
    return str(_held()["source"])


def prompts_of(name: str) -> int:
    """How many prompts a published set has."""
    return int(_held()["prompts"][name])


def pretrained(family: str) -> dict[str, Figure]:
    """The rates of a family's published checkpoint before any tuning, by set; empty: it was not measured."""
    return {one.set: one for one in figures() if (one.study, one.family) == ("pretrained", family)}
