"""Formatting of numbers and phrases for the report: percentages, intervals, p-values, counts and lists.

Every number on the page is formatted here.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from undersong.phrases import capitalize_first as capitalize_first
from undersong.phrases import count as count
from undersong.phrases import join_items as join_items
from undersong.results.schema_base import MISSING as MISSING
from undersong.results.schema_base import MODALITY_LABELS as MODALITY_LABELS
from undersong.results.schema_base import modality_label as modality_label
from undersong.results.schema_base import value_text as value_text

THIN_SPACE = "\u202f"  # narrow no-break space, before a percent sign
NBSP = "\u00a0"


def percent(share: float | None) -> str:
    """0.809 -> '80.9 %'."""
    return MISSING if share is None else _minus(f"{100 * share:.1f}{THIN_SPACE}%")


def percent_number(share: float | None) -> str:
    """Format a share for a column headed in percent: 0.809 gives '80.9'."""
    return MISSING if share is None else f"{100 * share:.1f}"


def bracket(low: float | None, high: float | None) -> str:
    """Format an interval of shares in percent, such as '[76.1, 85.3]'; empty if there is none."""
    if low is None or high is None:
        return ""
    return f"[{_minus(f'{100 * low:.1f}')},{NBSP}{_minus(f'{100 * high:.1f}')}]"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, signed: '+77.8'."""
    if difference is None:
        return MISSING
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else _minus(text)


def nats_number(value: float | None) -> str:
    """A refusal margin in nats, with two decimals: '4.21'."""
    return decimal(value, 2)


def nats_bracket(low: float | None, high: float | None) -> str:
    """Format an interval of refusal margins, such as '[3.90, 4.52]'; empty if there is none."""
    return "" if low is None or high is None else f"[{decimal(low, 2)},{NBSP}{decimal(high, 2)}]"


def signed(value: float | None, decimals: int = 2) -> str:
    """A signed difference that is no share: '−3.10'."""
    if value is None:
        return MISSING
    text = f"{value:+.{decimals}f}"
    return _minus(text[1:] if float(text) == 0 else text)


def p_value(p: float | None) -> str:
    """A p value: '0.012', or '<0.001'."""
    if p is None:
        return MISSING
    return f"<{NBSP}0.001" if p < 0.001 else f"{p:.3f}"


def p_value_relation(p: float | None) -> str:
    """'= 0.012', '< 0.001'."""
    text = p_value(p)
    return text if text.startswith("<") else f"={NBSP}{text}"


def decimal(value: float | None, decimals: int = 3) -> str:
    """0.4118 -> '0.412', at a fixed number of places; a minus is a minus sign."""
    return MISSING if value is None else _minus(f"{value:.{decimals}f}")


def decimals_needed(values: Iterable[float]) -> int:
    """Decimal places that write round numbers (an axis) without loss, at most six."""
    numbers = list(values)
    return next((n for n in range(6) if all(abs(round(v, n) - v) < 1e-9 for v in numbers)), 6)


def distance_decimals(values: Iterable[float | None]) -> int:
    """Return the number of decimals that distinguishes these distances: at least three, at most six."""
    finite = sorted({value for value in values if value is not None})
    step = min((b - a for a, b in pairwise(finite)), default=0.0)
    decimals = 3
    while decimals < 6 and 0 < step < 10**-decimals:
        decimals += 1
    return decimals


def _minus(text: str) -> str:
    return text.replace("-", "\u2212")
