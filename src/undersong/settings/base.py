"""Base class and shared field types of the study schema: unknown keys and repeated values are errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from undersong.types import MAX_SEED

Share = float

Modality = Literal["audio", "text"]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class StrictModel(BaseModel):
    """Base of every part of a study file: unknown keys, NaN and infinity are errors, and nothing changes once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def check_distinct(key_path: str, values: Sequence[object]) -> None:
    """Check that a list is not empty and has no repeated value, which would be counted as two arms or runs."""
    if not values:
        raise ValueError(f"{key_path}: at least one is needed")
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{key_path}: {value!r} stands more than once")
