"""Arguments that the commands on study files share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from undersong.options import Option

if TYPE_CHECKING:
    from undersong.study.schema import Study


@dataclass(frozen=True)
class StudyArguments:
    """A study file with the folders and values for it."""

    study: Annotated[Path, Option("Study file (YAML).", argument=True)]
    out: Annotated[
        Path | None,
        Option("Folder for results and report. Default: out/STUDY. The studies of a matrix get one folder each in it."),
    ] = None
    store: Annotated[Path | None, Option("Folder for artifacts, kept between runs. Default: OUT/store.")] = None
    overrides: Annotated[
        tuple[str, ...],
        Option(
            "Change a key of the study file, such as tuning.seeds=[0,1]; repeatable. VALUE is YAML.",
            "--override",
            metavar="KEY=VALUE",
        ),
    ] = ()
    only: Annotated[str | None, Option("Take only this study of a file with a matrix.", metavar="NAME")] = None


@dataclass(frozen=True)
class StudyRun:
    """A study, the folder of its results, and its store, which all studies of one file share."""

    study: Study
    out: Path
    store: Path


def resolve_studies(arguments: StudyArguments) -> Iterator[StudyRun]:
    """Read all studies of a file before the first is run."""
    from undersong.study.load import load_studies

    study_file = load_studies(arguments.study, arguments.overrides, arguments.only)
    results_folder = arguments.out or Path("out") / study_file.name
    for study in study_file.studies:
        study_folder = results_folder if study.study == study_file.name else results_folder / study.study
        yield StudyRun(study, study_folder, arguments.store or results_folder / "store")
