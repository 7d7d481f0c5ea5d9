"""Studies run one after another in one store, so that nothing is trained twice and a killed run goes on.

Keeps what each attempt cost in `cost.json`.  Knows designs and the pipeline; knows no claim.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.paper.designs import FILES, Design
from undersong import __version__
from undersong.models import DEFAULT_LOAD_OPTIONS
from undersong.pipeline import design_lines, plan_artifacts, plan_study, run_audit, summarize_plan
from undersong.pipeline.planning.planning_store import PlanningStore
from undersong.store import write_atomic
from undersong.study import Study

COST = "cost.json"
Say = Callable[[str], None]


def run_all(design: Design, out: Path, store: Path, files: Sequence[str] = FILES, say: Say = print) -> None:
    """Every study of the files that has no results of this very study and version yet; told with what it can detect."""
    for file in files:
        for study in design.studies(file):
            say(f"{study.study}: {', '.join(study.models)}")
            if is_done(study, out / study.study):
                say("  its results are there")
                continue
            for line in (plan_study(study, store).summary, *design_lines(study)):
                say(f"  {line}")
            finished = run_audit(study, out / study.study, store)
            keep_cost(out, study.study, finished.cpu_seconds)
            say(f"  {finished.cpu_seconds:.0f} CPU seconds, result hash {finished.result_hash}")


def plan_all(design: Design, store: Path, files: Sequence[str] = FILES, say: Say = print) -> None:
    """What `run_all` would do, study by study and all together; loads no model."""
    whole: PlanningStore | None = None
    for file in files:
        for study in design.studies(file):
            ledger = plan_artifacts(study, store, DEFAULT_LOAD_OPTIONS)
            say(f"{study.study}: {', '.join(study.models)}")
            for line in (summarize_plan(study, ledger).summary, *design_lines(study)):
                say(f"  {line}")
            if whole is None:
                whole = ledger
            else:
                whole.planned |= ledger.planned  # what two studies have in common is made once
                whole.unscreened_axes += ledger.unscreened_axes
    if whole is not None:
        say(f"All together: {summarize_plan(study, whole).summary}")


def is_done(study: Study, folder: Path) -> bool:
    """Whether the folder holds results of this study as it stands, by this version."""
    try:
        found = json.loads((folder / "results.json").read_bytes())
    except (OSError, ValueError):
        return False
    return is_of(found, study) and found.get("provenance", {}).get("undersong") == __version__


def is_of(results: Any, study: Study) -> bool:
    """Whether results are of this very study."""
    asked = results.get("study") if isinstance(results, dict) else None
    return isinstance(asked, dict) and asked.get("config") == study.model_dump(mode="json")


def keep_cost(out: Path, study: str, seconds: float) -> None:
    """One attempt's CPU seconds after those of earlier ones."""
    costs = costs_of(out)
    costs.setdefault(study, []).append(round(seconds, 1))
    write_atomic(out / COST, json.dumps(costs, indent=1).encode() + b"\n")


def costs_of(out: Path) -> dict[str, Any]:
    """Study -> CPU seconds of each attempt that came to its end."""
    file = out / COST
    return json.loads(file.read_bytes()) if file.is_file() else {}
