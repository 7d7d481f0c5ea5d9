"""Screening alone, on files: which items of a pool lie close to harm, on which axis, and which are kept."""

from undersong.pipeline.screening.options import ScreeningOptions, parse_axes, parse_columns, parse_harm_sets
from undersong.pipeline.screening.output import Screened
from undersong.pipeline.screening.run import DEFAULT_OPTIONS, run_screening

__all__ = [
    "DEFAULT_OPTIONS",
    "ScreeningOptions",
    "Screened",
    "parse_axes",
    "parse_columns",
    "parse_harm_sets",
    "run_screening",
]
