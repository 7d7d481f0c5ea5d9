"""Base class of the records in results.json, the records that several parts share, and the words for modalities."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from undersong.statistics import Interval

MODALITY_LABELS = {"audio": "spoken", "text": "typed"}


class Record(BaseModel):
    """A part of results.json: an unknown key is an error, nothing can be changed, and every number is finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True)


class ValueWithInterval(Record):
    """A value with its 95 % interval; None where it could not be measured, or nothing can show an interval."""

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
