"""`status`: how far a study is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.studies import Only, Sets, StorePath, StudyOut, StudyPath, placed

if TYPE_CHECKING:
    from undersong.pipeline.status import Status


def status(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    sets: Sets = None,
    only: Only = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """What of a study is done and what is being made, while it runs; options as of its `run`.  Loads no model."""
    from undersong.models.loading import Loading
    from undersong.pipeline.folders import RESULTS
    from undersong.pipeline.status import status_of

    loading = Loading(device, dtype, device_map, attention, quantize)
    for one in placed(study, out, store, sets, only):
        typer.echo(f"{one.study.study} in {one.store}")
        _tell(status_of(one.study, one.store, loading))
        there = (one.out / RESULTS).is_file()
        typer.echo(f"results in {one.out}" if there else f"no results yet in {one.out}")


def _tell(found: Status) -> None:
    for row in found.rows:
        typer.echo(f"  {row.stage:<14}{row.done} of {row.total}")
    for line in found.making:
        typer.echo(f"being made: {line}")
    for line in found.left:
        typer.echo(f"left half-made, and gone on with by the next run: {line}")
    for line in (found.sentence, *found.otherwise):
        typer.echo(line)
