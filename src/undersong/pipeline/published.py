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
class PublishedRate:
    """One cell of a published table: a percentage, of one run.  `study`: the file of studies/paper that stands for it.

    `possible`: whether a whole number of all prompts gives it; None where nobody checked (usefulness).
    """

    study: str
    family: str
    condition: str
    fraction: int | None  # percent of the pool
    set_name: str
    percent: float
    is_possible: bool | None


@cache
def _load_figures() -> dict[str, Any]:
    text = resources.files("undersong").joinpath("data/paper/figures.json").read_text(encoding="utf-8")
    figures_file: dict[str, Any] = json.loads(text)
    return figures_file


def published_rates() -> tuple[PublishedRate, ...]:
    """Every cell, table by table."""
    return tuple(PublishedRate(*row) for row in _load_figures()["rows"])


def published_source() -> str:
    """Where they were printed."""
    return str(_load_figures()["source"])


def published_prompt_count(name: str) -> int:
    """How many prompts a published set has."""
    return int(_load_figures()["prompts"][name])


def pretrained_rates(family: str) -> dict[str, PublishedRate]:
    """The rates of a family's published checkpoint before any tuning, by set; empty: it was not measured."""
    return {rate.set_name: rate for rate in published_rates() if (rate.study, rate.family) == ("pretrained", family)}
