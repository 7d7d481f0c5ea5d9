"""Entry point of inspect_ai: registers the model provider, tasks, scorers and metrics. Loads no torch."""

from __future__ import annotations

from typing import Any

from inspect_ai.model import modelapi

from undersong.research.inspect.scorers import SCORERS, rates
from undersong.research.inspect.tasks import jsr, over_refusal

__all__ = ["SCORERS", "jsr", "over_refusal", "rates", "undersong"]


@modelapi(name="undersong")
def undersong() -> Any:
    """Model provider of `--model undersong/organism:af3`, `undersong/FOLDER` or `undersong/ORG/NAME`."""
    from undersong.research.inspect.provider import UndersongAPI

    return UndersongAPI
