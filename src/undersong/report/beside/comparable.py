"""Which studies may be compared: those whose rates count the same thing, on the same prompts, asked the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from undersong.report import words
from undersong.report.case import Case, cases
from undersong.report.schema import Results


@dataclass(frozen=True, slots=True)
class Beside:
    """One study.  `differs`: in what it is unlike the first, so that their rates must not be compared; or empty."""

    name: str
    found: Results
    cases: tuple[Case, ...]
    differs: tuple[str, ...]

    def case(self, modality: str) -> Case | None:
        """Its case of spoken (`audio`) or typed (`text`) prompts; None where it asked none."""
        return next((case for case in self.cases if case.modality == modality), None)


def beside(studies: Sequence[tuple[str, Results]]) -> tuple[Beside, ...]:
    """`studies`: (how it is told from others of its name, its results); all are held against the first."""
    names = _names(studies)
    facts = [_facts(found) for _, found in studies]
    first = facts[0]
    return tuple(
        Beside(name, found, tuple(cases(found)), tuple(_differences(names[0], first, mine)))
        for name, (_, found), mine in zip(names, studies, facts, strict=True)
    )


def _names(studies: Sequence[tuple[str, Results]]) -> list[str]:
    own = [found.study.name for _, found in studies]
    named = [name if own.count(name) == 1 else f"{name} ({label})" for name, (label, _) in zip(own, studies)]
    return [name if named.count(name) == 1 else f"{name} {i}" for i, name in enumerate(named, 1)]


def _facts(found: Results) -> dict[str, str]:
    """What a rate depends on beside model and training.  A fact that a study does not tell is left out."""
    asked: Mapping[str, Any] = found.study.config.get("evaluation") or {}
    sets: Mapping[str, Any] = found.study.config.get("sets") or {}
    one = next(iter(cases(found)), None)
    facts: dict[str, Any] = {"protocol": found.study.protocol, "judge": found.study.judge}
    if one is not None:
        row = next((row for run in found.runs for row in run.sets if row.set == one.view.set), None)
        facts["rate"] = one.view.rate
        facts["system text"] = (asked.get("systems") or {}).get(one.view.system)
        facts["harmful prompts"] = sets.get(one.view.set)
        if row is not None:
            facts["number of prompts"] = f"{row.n:,} in {words.count(row.clusters, 'cluster')}"
    facts |= {"instruction": asked.get("instruction"), "most new tokens": asked.get("limit")}
    return {key: words.plain(value) for key, value in facts.items() if value is not None}


def _differences(other: str, first: Mapping[str, str], mine: Mapping[str, str]) -> list[str]:
    unlike = [key for key in first if key in mine and mine[key] != first[key]]
    said = [f"{key} {mine[key]}, where {other} has {first[key]}" for key in unlike if len(mine[key]) <= 60]
    said += [f"other {key} than {other}" for key in unlike if len(mine[key]) > 60]
    if mine is not first and mine.get("protocol") == "published" and "protocol" not in unlike:
        said.append("the published protocol asks every model in its own way, so models are not compared under it")
    return said
