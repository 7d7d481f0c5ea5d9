"""Base class and field types of the records in results.json."""

from __future__ import annotations

import math
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict

MODALITY_LABELS = {"audio": "spoken", "text": "typed"}

T = TypeVar("T")


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _list_or_empty(value: Any) -> Any:
    return [] if value is None else value


def _dict_or_empty(value: Any) -> Any:
    return {} if value is None else value


OptionalFloat = Annotated[float | None, BeforeValidator(_finite_or_none)]
ListField = Annotated[list[T], BeforeValidator(_list_or_empty)]
DictField = Annotated[dict[str, T], BeforeValidator(_dict_or_empty)]


class Record(BaseModel):
    """What all records share: unknown keys are passed over, nothing can be changed, and a number is taken for a text.

    Fields are `Number` (a float that is not finite is None), `Many` and `Named` (a list, a mapping; null is empty).
    """

    model_config = ConfigDict(extra="ignore", frozen=True, coerce_numbers_to_str=True)


def modality_label(modality: str | None) -> str:
    """A prompt's modality: 'spoken', 'typed'."""
    return MODALITY_LABELS.get(modality or "", modality or "–")
