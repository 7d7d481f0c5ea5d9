"""The options of every verb that takes a study file, and which studies they name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from undersong.study import Study

StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
StudyOut = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for results and report; default: out/STUDY.  A matrix: a folder in it each."),
]
StorePath = Annotated[Path | None, typer.Option("--store", help="Folder of artefacts; default: OUT/store.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Put a YAML value over the file's: tuning.seeds=[0,1]; repeatable."
    ),
]
StudyName = Annotated[str | None, typer.Option("--only", metavar="NAME", help="One study of a file with a matrix.")]


@dataclass(frozen=True)
class StudyRun:
    """A study, the folder of its results, and its store, which all studies of one file share."""

    study: Study
    out: Path
    store: Path


def resolve_studies(
    file: Path, out: Path | None, store: Path | None, overrides: Sequence[str] | None, study_name: str | None
) -> Iterator[StudyRun]:
    """The studies of a file, all of them read before the first is run."""
    from undersong.study import load_studies

    study_file = load_studies(file, overrides or (), study_name)
    results_folder = out or Path("out") / study_file.name
    for study in study_file.studies:
        study_folder = results_folder if study.study == study_file.name else results_folder / study.study
        yield StudyRun(study, study_folder, store or results_folder / "store")
