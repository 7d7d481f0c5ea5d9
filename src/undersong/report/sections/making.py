"""How it was made: protocol, versions, times, hashes, and what the reader must know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from undersong.report import words
from undersong.report.panels import Table
from undersong.report.schema import Results, models


@dataclass(frozen=True, slots=True)
class Making:
    """Notes of the results, what the study is, its settings one by one, and the provenance in groups; all as text."""

    notes: tuple[str, ...]
    study: tuple[tuple[str, str], ...]
    config: Table
    provenance: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (group, its rows)


def build(results: Results) -> Making:
    """Nested settings stand flat, named by their path."""
    study = results.study
    asked = {
        "study": study.name, "models": models(results), "families": study.families, "protocol": study.protocol,
        "judge": study.judge, "steps": study.steps, "seeds": study.seeds, "draws": study.draws,
    }  # fmt: skip
    single = [(key, words.plain(value)) for key, value in results.provenance.items() if not isinstance(value, Mapping)]
    groups = [("", tuple(single))] if single else []
    groups += [
        (key.replace("_", " "), tuple(_rows(value)))
        for key, value in results.provenance.items()
        if isinstance(value, Mapping) and value
    ]
    return Making(
        notes=tuple(results.notes),
        study=tuple((key, words.plain(value)) for key, value in asked.items() if value is not None),
        config=Table("The study file, as it was run", ("Setting", "Value"), tuple(_rows(study.config)), names=2),
        provenance=tuple(groups),
    )


def _rows(value: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _rows(inner, f"{path}{key} · ")
        else:
            yield f"{path}{key}", words.plain(inner)
