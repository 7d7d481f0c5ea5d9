"""Shared command-line options: compute engine, model loading, study files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from undersong.study import Study


EngineName = Annotated[str, typer.Option("--engine", help="local | ray (extra `scale`).")]
Address = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster, HOST:PORT or auto; default: this machine.")
]
WorkerCount = Annotated[int | None, typer.Option("--workers", min=1, help="Of Ray; default: as many as fit.")]
Gpus = Annotated[float, typer.Option("--gpus", min=0, help="GPUs a Ray worker.")]


Device = Annotated[str, typer.Option("--device", help="A torch device.")]
Dtype = Annotated[str, typer.Option("--dtype", help="float32 | bfloat16 | float16.")]
DeviceMap = Annotated[str | None, typer.Option("--device-map", help="auto: spread the model over what there is.")]
Attention = Annotated[
    str | None, typer.Option("--attention", help="sdpa | eager | flash_attention_2; default: the model's own.")
]
Quantize = Annotated[int | None, typer.Option("--quantize", help="4 or 8 bits (extra `quantize`).")]
MODEL_HELP = "organism:NAME, mini, a folder, or a Hugging Face id (ORG/NAME@REVISION)"
ModelName = Annotated[str, typer.Option("--model", help=f"{MODEL_HELP}.")]
# What `corpora.open_corpus` takes.
MANIFEST_HELP = "JSONL, CSV, Parquet, a folder of audio, conversations, hf:OWNER/NAME, or organism:NAME"


StudyPath = Annotated[Path, typer.Argument(metavar="STUDY", help="A study file (YAML).")]
StudyOut = Annotated[
    Path | None,
    typer.Option("--out", help="Folder for results and report; default: out/STUDY.  A matrix: a folder in it each."),
]
StorePath = Annotated[Path | None, typer.Option("--store", help="Folder of artifacts; default: OUT/store.")]
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
