"""Judges of usefulness by name; jiwer is imported only when `wer` is made."""

from __future__ import annotations

from collections.abc import Callable

from undersong.evaluation.utility.bbh import bbh_judge
from undersong.evaluation.utility.multiple_choice import choice_judge
from undersong.evaluation.utility.spoken_qa import contains_judge, f1_judge
from undersong.evaluation.utility.wer import wer_judge
from undersong.types import Judge

UTILITY_JUDGES: dict[str, Callable[[], Judge]] = {
    "choice": choice_judge,
    "bbh": bbh_judge,
    "contains": contains_judge,
    "f1": f1_judge,
    "wer": wer_judge,
}
