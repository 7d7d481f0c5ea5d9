"""Arrays as JSON has them: what is not a number is null."""

from __future__ import annotations

from typing import Any

import numpy as np


def finite_or_none(value: float) -> float | None:
    """As JSON has it."""
    return float(value) if np.isfinite(value) else None


def rows_by_layer(**columns: np.ndarray) -> list[dict[str, Any]]:
    """One entry a place of the decoder (0 is its input), from arrays (layers + 1,)."""
    length = len(next(iter(columns.values())))
    return [
        {"place": i, **{name: finite_or_none(values[i]) for name, values in columns.items()}} for i in range(length)
    ]
