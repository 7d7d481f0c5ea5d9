"""Which studies of a design have results, of when, at what cost.  Knows the provenance of results; no number in them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.paper.designs import Design
from experiments.paper.runner import REGISTERED, costs_of, is_of
from undersong.types import UndersongError


@dataclass(frozen=True)
class Source:
    """The results of one study."""

    study: str
    models: tuple[str, ...]
    date: str
    cpu: str  # seconds, or that nobody knows
    result_hash: str
    registered: bool  # before it was run, as it was run, and by the digest that is kept beside this code


@dataclass(frozen=True)
class Made:
    """All that a page is made of."""

    sources: tuple[Source, ...]
    missing: tuple[str, ...]
    cpu_seconds: float
    date: str  # of the latest

    @property
    def done(self) -> int:
        return len(self.sources)

    @property
    def wanted(self) -> int:
        return len(self.sources) + len(self.missing)


def made_of(design: Design, folder: Path) -> Made:
    """Errors: results of another study than the design's, which a page of this design cannot be made of."""
    costs, sources, missing = costs_of(folder), list[Source](), list[str]()
    digests = json.loads(REGISTERED.read_bytes()) if REGISTERED.is_file() else {}
    for study in (study for file in design.files for study in design.studies(file)):
        file = folder / study.study / "results.json"
        if not file.is_file():
            missing.append(study.study)
            continue
        found = json.loads(file.read_bytes())
        if not is_of(found, study):
            raise UndersongError(f"{file} is not of {study.study} in the {design.name} design; run it again.")
        mine, made = costs.get(study.study), found["provenance"]
        cpu = "unknown" if mine is None else f"{sum(mine):.0f}"
        sources.append(
            Source(
                study.study, study.models, made["created"][:10], cpu, made["result_hash"][:16],
                _is_registered(study.study, made.get("registration"), digests),
            )
        )  # fmt: skip
    total = sum(sum(mine) for mine in costs.values())
    date = max((one.date for one in sources), default="no day, because no study was run")
    return Made(tuple(sources), tuple(missing), total, date)


def _is_registered(study: str, record: dict[str, Any] | None, digests: Mapping[str, str]) -> bool:
    """Whether results say that they follow the registration whose digest is kept, without a change."""
    if record is None or record["digest"] != digests.get(study):
        return False
    return bool(record["intact"] and not record["changes"] and not record["rule_changes"])
