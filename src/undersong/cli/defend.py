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
    from undersong.models.loading import Loading
    from undersong.pipeline.speakers import answers_only
    from undersong.report import defenses

    loading = Loading(device, dtype, device_map, attention, quantize)
    each = list(placed(study, out, store, sets, only))
    for one in each:
        asked, name = one.study, f"{study}: {one.study.study}"
        if not (asked.defenses or asked.system_defense or "distant" in asked.selection.kinds):
            raise UndersongError(f"{name} names no defense; give `defenses`, or run it with `undersong run`.")
        if all(map(answers_only, asked.models)):
            raise UndersongError(f"{name} has only models that only answer, which cannot be defended; give others.")
    for one in each:
        results = run_study(one, loading, show_replies)
        for line in defenses(results):
            typer.echo(line)
