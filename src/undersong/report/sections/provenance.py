"""Provenance of the results: study settings, versions, times, hashes and caveats."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from undersong.pages import formatting
from undersong.pages.tables import Table
from undersong.research.report.registration import registration_sentences
from undersong.results.schema import Results, model_names


@dataclass(frozen=True, slots=True)
class Provenance:
    """Notes of the results, registration, description and settings of the study, and provenance in groups, as text."""

    notes: tuple[str, ...]
    registration: tuple[str, ...]  # sentences
    study: tuple[tuple[str, str], ...]
    config: Table
    provenance: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]  # (group, its rows)


def build_provenance(results: Results) -> Provenance:
    """Build the provenance section; nested settings are listed by their path."""
    study = results.study
    study_facts = {
        "study": study.name, "models": model_names(results), "protocol": study.protocol,
        "judge": study.judge, "steps": study.steps, "seeds": study.seeds, "draws": study.draws,
    }  # fmt: skip
    hidden = {"run_adapters", "registration"}  # for other programs; told in sentences
    provenance = (
        results.provenance.model_dump(exclude_none=True, exclude=hidden) if results.provenance is not None else {}
    )
    registration = results.provenance.registration if results.provenance is not None else None
    ungrouped = [
        (key, formatting.value_text(value)) for key, value in provenance.items() if not isinstance(value, Mapping)
    ]
    groups = [("", tuple(ungrouped))] if ungrouped else []
    groups += [
        (key.replace("_", " "), tuple(_flatten_settings(value)))
        for key, value in provenance.items()
        if isinstance(value, Mapping) and value
    ]
    return Provenance(
        notes=tuple(results.notes),
        registration=registration_sentences(registration) if registration is not None else (),
        study=tuple((key, formatting.value_text(value)) for key, value in study_facts.items() if value is not None),
        config=Table("Study settings", ("Setting", "Value"), tuple(_flatten_settings(study.config)), names=2),
        provenance=tuple(groups),
    )


def _flatten_settings(value: Mapping[str, Any], path: str = "") -> Iterable[tuple[str, str]]:
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _flatten_settings(inner, f"{path}{key} · ")
        else:
            yield f"{path}{key}", formatting.value_text(inner)
