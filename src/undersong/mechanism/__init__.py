"""Where in the network the refusal went: directions, gaps, and proof that the encoder stayed as it was."""

from undersong.mechanism.directions import Direction, fit_direction, gap_curve, late_change

__all__ = ["Direction", "fit_direction", "gap_curve", "late_change"]
