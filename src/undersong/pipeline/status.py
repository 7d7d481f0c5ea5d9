"""How far a study is, while it runs or after, told from a ledger and from who holds which lock.  Loads no model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.ledger import Asked, look
from undersong.pipeline.otherwise import made_otherwise
from undersong.pipeline.plan import PlanRow, told
from undersong.store import LEFT, MAKING, progress
from undersong.study import Study


@dataclass(frozen=True)
class Status:
    """`making`, `left`: a line for each artefact that is being made, and that a killed process left half-made;
    `otherwise`: a sentence for each other loading that the store holds some of the study under."""

    rows: tuple[PlanRow, ...]
    making: tuple[str, ...]
    left: tuple[str, ...]
    sentence: str
    otherwise: tuple[str, ...]


def status_of(study: Study, store_root: str | Path, loading: Loading = PLAIN) -> Status:
    """What of the study is in its store, and what somebody is making there.  Errors: as of `plan_of`."""
    ledger = look(study, store_root, loading)
    planned = told(study, ledger)
    states = [(progress(one.place), one) for one in ledger.asked.values() if one.found is None]
    making, left = (tuple(_line(one) for state, one in states if state == wanted) for wanted in (MAKING, LEFT))
    return Status(planned.rows, making, left, planned.sentence, made_otherwise(study, ledger, loading))


def _line(one: Asked) -> str:
    """What it is, by the words of the run that makes it."""
    return f"{one.stage} of {one.about or 'all models'}"
