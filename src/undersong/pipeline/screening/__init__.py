"""Screening alone, on files: which items of a pool lie close to harm, on which axis, and which are kept."""

from undersong.pipeline.screening.asked import Asked, parse_axes, parse_columns, parse_harm
from undersong.pipeline.screening.run import PLAIN, screen
from undersong.pipeline.screening.writing import Screened

__all__ = ["PLAIN", "Asked", "Screened", "parse_axes", "parse_columns", "parse_harm", "screen"]
