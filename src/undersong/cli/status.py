"""`status`: how far a study is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.options import Overrides, StorePath, StudyName, StudyOut, StudyPath, resolve_studies

if TYPE_CHECKING:
    from undersong.pipeline.status import StudyStatus


def status(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    overrides: Overrides = None,
    study_name: StudyName = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """What of a study is done and what is being made, while it runs; options as of its `run`.  Loads no model."""
    from undersong.models.load_options import Loading
    from undersong.pipeline.output_folder import RESULTS_FILE
    from undersong.pipeline.status import study_status

    loading = Loading(device, dtype, device_map, attention, quantize)
    for study_run in resolve_studies(study, out, store, overrides, study_name):
        typer.echo(f"{study_run.study.study} in {study_run.store}")
        _print_status(study_status(study_run.study, study_run.store, loading))
        has_results = (study_run.out / RESULTS_FILE).is_file()
        typer.echo(f"results in {study_run.out}" if has_results else f"no results yet in {study_run.out}")


def _print_status(study_status: StudyStatus) -> None:
    for row in study_status.rows:
        typer.echo(f"  {row.stage:<14}{row.done} of {row.total}")
    for line in study_status.in_progress:
        typer.echo(f"being made: {line}")
    for line in study_status.interrupted:
        typer.echo(f"left half-made, and gone on with by the next run: {line}")
    for line in (study_status.summary, *study_status.other_loadings):
        typer.echo(line)
