"""Studies run one after another in one store, so that nothing is trained twice and a killed run goes on.

Keeps what each attempt cost in `cost.json`.  Knows designs and the pipeline; knows no claim.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from experiments.paper.designs import Design
from undersong import __version__
from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
from undersong.research.registration import read_registration, register_study, write_registration
from undersong.store.atomic import write_atomic
from undersong.study.planning.plan import plan_study, summarize_plan
from undersong.study.planning.planning_store import PlanningStore, plan_artifacts
from undersong.study.planning.power import design_lines
from undersong.study.run import run_audit
from undersong.study.schema import Study
from undersong.study.study_folder import REGISTRATION_FILE

COST = "cost.json"
REGISTERED = Path(__file__).parent / "registered.json"  # study -> digest of its registration
Say = Callable[[str], None]


def register_all(
    design: Design, out: Path, store: Path, created: str, files: Sequence[str] | None = None, say: Say = print
) -> dict[str, str]:
    """Register every study of the files that is not registered yet, before it is run; loads no model.

    Args:
        design: The design.
        out: Folder with one folder for each study; each receives `registration.json`.
        store: Folder of the store.
        created: Time of the registration.
        files: Study files; default: all of the design.
        say: Receives a line for each study.

    Returns:
        Study -> digest of its registration, which says whether the registration was changed afterwards.
    """
    digests = {}
    for study in _studies(design, files):
        file = out / study.study / REGISTRATION_FILE
        if not file.is_file():
            registration = register_study(study, store, DEFAULT_LOAD_OPTIONS, created)
            file.parent.mkdir(parents=True, exist_ok=True)
            write_registration(registration, file)
            known = len(registration.known_verdicts)
            say(f"{study.study}: registered, with {known} of its verdicts in the store already")
        digests[study.study] = read_registration(file).digest
    return digests


def run_all(
    design: Design, out: Path, store: Path, files: Sequence[str] | None = None, say: Say = print, part: str = "1/1"
) -> None:
    """Every study of the files that has no results of this very study and version yet; told with what it can detect.

    Args:
        design: The design.
        out: Folder with one folder for each study.
        store: Folder of the store.
        files: Study files; default: all of the design.
        say: Receives progress.
        part: `K/N`: every Nth study from the Kth on, so that N processes share the work.
    """
    number, parts = map(int, part.split("/"))
    for study in _studies(design, files)[number - 1 :: parts]:
        say(f"{study.study}: {', '.join(study.models)}")
        if is_done(study, out / study.study):
            say("  its results are there")
            continue
        for line in (plan_study(study, store).summary, *design_lines(study)):
            say(f"  {line}")
        finished = run_audit(study, out / study.study, store)
        keep_cost(out, study.study, finished.cpu_seconds, COST if parts == 1 else f"cost-{number}-of-{parts}.json")
        say(f"  {finished.cpu_seconds:.0f} CPU seconds, result hash {finished.result_hash}")


def _studies(design: Design, files: Sequence[str] | None) -> list[Study]:
    """The studies of a design; file by file."""
    return [study for file in files or design.files for study in design.studies(file)]


def plan_all(design: Design, store: Path, files: Sequence[str] | None = None, say: Say = print) -> None:
    """What `run_all` would do, study by study and all together; loads no model."""
    whole: PlanningStore | None = None
    for study in _studies(design, files):
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


def keep_cost(out: Path, study: str, seconds: float, name: str = COST) -> None:
    """Write one attempt's CPU seconds after those of earlier ones; each of several processes has a file of its own."""
    file = out / name
    costs = json.loads(file.read_bytes()) if file.is_file() else {}
    costs.setdefault(study, []).append(round(seconds, 1))
    write_atomic(file, json.dumps(costs, indent=1).encode() + b"\n")


def costs_of(out: Path) -> dict[str, Any]:
    """Study -> CPU seconds of each attempt that came to its end."""
    costs: dict[str, Any] = {}
    for file in sorted(out.glob("cost*.json")):
        for study, seconds in json.loads(file.read_bytes()).items():
            costs.setdefault(study, []).extend(seconds)
    return costs
