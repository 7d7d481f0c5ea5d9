"""Judges of usefulness by name; jiwer is imported only when `wer` is made."""

from __future__ import annotations

from collections.abc import Callable

from undersong.evaluation.usefulness.bbh import bbh
from undersong.evaluation.usefulness.choice import choice
from undersong.evaluation.usefulness.spoken_qa import contains, f1
from undersong.evaluation.usefulness.words import wer
from undersong.types import Judge

utility_judges: dict[str, Callable[[], Judge]] = {
    "choice": choice,
    "bbh": bbh,
    "contains": contains,
    "f1": f1,
    "wer": wer,
}
