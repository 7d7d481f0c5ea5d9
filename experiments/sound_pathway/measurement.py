"""From model folders to JSRs, by the ordinary study machinery: a study file of the repository, its pipeline, one store.

Each base is put through the stages as soon as it is there; the results of a variant are then a look-up, the same as
`undersong run studies/organism/architecture.yaml --only architecture-VARIANT` makes.  Trains no base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from experiments.sound_pathway.contrast import Run

if TYPE_CHECKING:
    from undersong.study.schema import Study

STUDIES = Path("studies/organism")  # of the repository's root, where the recipe is called
FINAL, PILOT = STUDIES / "architecture.yaml", STUDIES / "architecture_pilot.yaml"


Change = Callable[["Study"], "Study"]


def whole(study: Study) -> Study:
    return study


def studies_of(file: Path) -> dict:
    """Variant -> its study, of a file whose matrix is over variants."""
    from undersong.study.load import load_studies

    held = load_studies(file)
    return {one.study.removeprefix(f"{held.name}-"): one for one in held.studies}


def folders(file: Path, variant: str) -> list[Path]:
    """Where the study looks for a variant's bases, in order."""
    return [Path(ref) for ref in studies_of(file)[variant].models]


def speech_only(study: Study) -> Study:
    """Without the trainings on text, which only the secondary contrast needs."""
    return study.model_copy(update={"tuning": study.tuning.model_copy(update={"modalities": ("audio",)})})


def prepare(file: Path, variant: str, number: int, store: Path, change: Change = whole, say=print) -> None:
    """All artifacts of one base, if it is there; bases count from 1."""
    from undersong.models.load_options import DEFAULT_LOAD_OPTIONS
    from undersong.stages.context import RunContext
    from undersong.store.store import Store
    from undersong.study.audit import audit_study

    study = change(studies_of(file)[variant])
    ref = study.models[number - 1]
    if is_there(ref):
        audit_study(study.model_copy(update={"models": (ref,)}), RunContext(Store(store), DEFAULT_LOAD_OPTIONS, say))


def is_there(ref: str) -> bool:
    return (Path(ref) / "config.json").is_file()


def measured(file: Path, out: Path, store: Path, change: Change = whole, say=print) -> Iterator[Run]:
    """The JSRs of every variant's bases that are there, by `undersong run`."""
    from undersong.study.run import run_audit

    for variant, written in studies_of(file).items():
        study = change(written)
        there = tuple(ref for ref in study.models if is_there(ref))
        if not there:
            continue
        found = run_audit(study.model_copy(update={"models": there}), out / study.study, store, say=say)
        yield from runs_in(found.results, variant, study.models)


def runs_in(results: dict, variant: str, models: tuple[str, ...]) -> Iterator[Run]:
    """results.json -> the fine-tunings of one variant, spoken requests of the set `harm`, at every step."""
    for run in results["runs"]:
        if run["kind"] == "base":
            continue
        (entry,) = [one for one in run["rates"] if (one["prompt_set"], one["modality"]) == ("harm", "audio")]
        number = models.index(run["model"]) + 1
        yield Run(variant, number, run["axis"], run["train_modality"], run["seed"], run["step"], entry["rate"])
