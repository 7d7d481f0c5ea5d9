"""The options of verbs that work on one machine or on Ray."""

from __future__ import annotations

from typing import Annotated

import typer

EngineName = Annotated[str, typer.Option("--engine", help="local | ray (extra `scale`).")]
Address = Annotated[
    str | None, typer.Option("--address", help="A Ray cluster, HOST:PORT or auto; default: this machine.")
]
WorkerCount = Annotated[int | None, typer.Option("--workers", min=1, help="Of Ray; default: as many as fit.")]
Gpus = Annotated[float, typer.Option("--gpus", min=0, help="GPUs a Ray worker.")]
