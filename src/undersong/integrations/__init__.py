"""Where undersong meets other people's machinery: a gate for continuous integration, trainers, inspect_ai."""

from undersong.integrations.gate import Checked, Limits, Rate, check, sentence
from undersong.integrations.outcome import BROKEN, KEPT, UNSURE, Case, exit_code
from undersong.integrations.rises import Judged, RiseLimits, judge_rises
from undersong.integrations.sides import file_sides, study_sides

__all__ = [
    "BROKEN",
    "KEPT",
    "UNSURE",
    "Case",
    "Checked",
    "Judged",
    "Limits",
    "Rate",
    "RiseLimits",
    "check",
    "exit_code",
    "file_sides",
    "judge_rises",
    "sentence",
    "study_sides",
]
