"""Base class of the records in results.json, the records that several parts share, and the words for their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

if TYPE_CHECKING:
    from undersong.statistics.bootstrap import Interval

MISSING = "–"  # placeholder for a value that was not measured
MODALITY_LABELS = {"audio": "spoken", "text": "typed"}


class Record(BaseModel):
    """A part of results.json: an unknown key is an error, nothing can be changed, and every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True)


class OmitsUnset(Record):
    """A record that leaves out the keys in `OMITTED_IF_NONE` where they are None, so that results keep their hash."""

    OMITTED_IF_NONE: ClassVar[tuple[str, ...]] = ()

    @model_serializer(mode="wrap")
    def _omit_unset(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values: dict[str, Any] = handler(self)
        return {key: value for key, value in values.items() if value is not None or key not in self.OMITTED_IF_NONE}


class ValueWithInterval(Record):
    """A value with its 95 % interval; None if it was not measured, or if no interval can be computed."""

    value: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def from_interval(cls, interval: Interval) -> ValueWithInterval:
        """The record of an interval that statistics computed."""
        return cls(value=interval.value, low=interval.low, high=interval.high)


class Quartiles(Record):
    """The range of a quantity and its quartiles."""

    min: float
    q25: float
    median: float
    q75: float
    max: float


def modality_label(modality: str | None) -> str:
    """A prompt's modality: 'spoken', 'typed'."""
    return MODALITY_LABELS.get(modality or "", modality or "–")


def value_text(value: Any) -> str:
    """Format any JSON value as text for readers."""
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}".replace("-", "\u2212")
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {value_text(item)}" for key, item in value.items()) or MISSING
    if isinstance(value, list | tuple):
        return ", ".join(value_text(item) for item in value) or MISSING
    return str(value)
