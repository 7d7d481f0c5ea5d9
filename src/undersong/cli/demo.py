"""`undersong demo`: the demo study on a packaged organism or on Mini."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.options import StudyRun
from undersong.cli.study import ShowReplies, run_study
from undersong.models.load_options import LoadOptions
from undersong.types import UndersongError


def demo(
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for results and report. Default: out/demo, or out/demo-mini for mini."),
    ] = None,
    n_seeds: Annotated[
        int | None,
        typer.Option("--n-seeds", min=1, max=20, help="Training seeds per arm. Default: 3, or 2 for mini."),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", help="Packaged organism to audit, such as organism:af3, or mini, which hears real words."
        ),
    ] = "organism:qwen-3",
    show_replies: ShowReplies = False,
) -> None:
    """Audit a small model with the demo study.

    A packaged organism takes two to five minutes on a laptop. With --model mini, which `undersong models get mini`
    assembles, you hear real words in the report; it takes six to thirteen minutes.
    """
    from undersong.models.mini.paths import ALIGNED, assembled_folder
    from undersong.models.refs import organism_folder
    from undersong.study.load import packaged_study, with_models, with_seeds

    if model == ALIGNED:
        assembled_folder(model)
        study, loading = packaged_study("mini_demo"), _cheapest_loading()
    elif model.startswith("organism:"):
        organism_folder(model.removeprefix("organism:"))
        study, loading = with_models(packaged_study("demo"), model), LoadOptions()
    else:
        raise UndersongError(
            f"The demo audits a packaged organism or mini, not {model!r}; write a study for it, and run that."
        )
    study = study if n_seeds is None else with_seeds(study, n_seeds)
    out = out or Path("out/demo-mini" if model == ALIGNED else "out/demo")
    run_study(StudyRun(study, out, out / "store"), loading, show_replies, verb="demo")


def _cheapest_loading() -> LoadOptions:
    """In bfloat16 where this machine computes in it, which halves the time of a model of real size."""
    from undersong.models.load import supports_bfloat16

    return LoadOptions(dtype="bfloat16") if supports_bfloat16("cpu") else LoadOptions()
