"""Where in the network the refusal went: directions, gaps, and proof that the encoder stayed as it was."""

from undersong.mechanism.directions import (
    GapCurve,
    RefusalDirection,
    fit_direction,
    gap_curve,
    late_gap_change,
    late_gap_p_value,
    load_direction,
    save_direction,
)

__all__ = [
    "RefusalDirection",
    "GapCurve",
    "fit_direction",
    "gap_curve",
    "late_gap_change",
    "late_gap_p_value",
    "load_direction",
    "save_direction",
]
