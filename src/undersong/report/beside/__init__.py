"""Several studies on one page: headlines on one scale, the questions they share, defenses, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from undersong.report import words
from undersong.report.beside import charged, contrasts, rates
from undersong.report.beside.comparable import Beside, beside
from undersong.report.page import encoded, page
from undersong.report.panels import Table
from undersong.report.schema import models, read
from undersong.report.summary import relation
from undersong.store import write_atomic

CONTENTS = (
    ("studies", "Studies side by side"),
    ("questions", "The same questions"),
    ("charges", "Defenses, charged"),
    ("origin", "How they were made"),
)


def render(studies: Sequence[tuple[str, Mapping[str, Any]]]) -> str:
    """One HTML document on several studies; `studies`: (where it lies, the content of its results.json).

    Errors: UndersongError where one is of another schema or broken, which names it.
    """
    found = beside([(label, read(results, label)) for label, results in studies])
    return page(
        "beside/",
        title=words.listed([study.name for study in found]),
        models=(),
        contents=CONTENTS,
        studies=found,
        told=_told(found),
        apart=[study for study in found if study.differs],
        rates=rates.build(found),
        shared=contrasts.build(found),
        charged=charged.build(found),
        made=_made(found),
    )


def write_beside(studies: Sequence[tuple[str, Mapping[str, Any]]], path: str | Path) -> None:
    """`render` into a file, whole or not at all."""
    write_atomic(path, encoded(render(studies)))


def _told(studies: Sequence[Beside]) -> str:
    """In how many of them the worst arm is above its base; empty where none has both."""
    asked = [study.cases[0] for study in studies if study.cases]
    states = [
        relation(case.worst.estimate, case.base, case.against_base(case.worst))
        for case in asked
        if case.worst is not None and case.base is not None
    ]
    said = (("higher", "above the base"), ("same", "not distinguishable from the base"), ("lower", "below the base"))
    parts = [f"in {states.count(state)} {what}" for state, what in said if state in states]
    return (
        f"The worst arm is {words.listed(parts)}, of {words.count(len(states), 'study', 'studies')}." if parts else ""
    )


def _made(studies: Sequence[Beside]) -> Table:
    head = ("Study", "Models", "Protocol", "Judge", "seeds", "steps", "arms", "created", "result hash")
    rows = tuple(
        (
            one.name, words.listed(models(one.found)), words.plain(one.found.study.protocol),
            words.plain(one.found.study.judge), words.plain(one.found.study.seeds), words.plain(one.found.study.steps),
            str(len({run.arm for run in one.found.runs if run.kind != "base"})),
            words.plain(one.found.provenance.get("created")), str(one.found.provenance.get("result_hash") or "–")[:12],
        )
        for one in studies
    )  # fmt: skip
    return Table("Where each came from", head, rows, names=len(head))
