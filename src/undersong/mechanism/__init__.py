"""Where in the network the refusal went: directions, gaps, and proof that the encoder stayed as it was."""

from undersong.mechanism.directions import (
    Direction,
    GapCurve,
    fit_direction,
    gap_curve,
    late_change,
    late_p,
    load_direction,
    save_direction,
)

__all__ = [
    "Direction",
    "GapCurve",
    "fit_direction",
    "gap_curve",
    "late_change",
    "late_p",
    "load_direction",
    "save_direction",
]
