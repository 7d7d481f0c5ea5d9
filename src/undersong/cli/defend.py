"""`defend`: what a study's defenses bring back of the refusals, and at what price."""

from __future__ import annotations

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.run import Replies, run_study
from undersong.cli.studies import Only, Sets, StorePath, StudyOut, StudyPath, placed
from undersong.types import UndersongError


def defend(
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
    show_replies: Replies = False,
) -> None:
    """`run`, and then one table: JSR, over-refusal, usefulness and what is still learned, under every defense."""
    from undersong.defenses.table import table
    from undersong.models.loading import Loading

    loading = Loading(device, dtype, device_map, attention, quantize)
    each = list(placed(study, out, store, sets, only))
    for one in each:
        if not (one.study.defenses or one.study.system_defense or "distant" in one.study.selection.kinds):
            raise UndersongError(
                f"{study}: {one.study.study} names no defense; give `defenses`, or run it with `undersong run`."
            )
    for one in each:
        results = run_study(one, loading, show_replies)
        for line in table(results["defenses"], results["recommended"]):
            typer.echo(line)
