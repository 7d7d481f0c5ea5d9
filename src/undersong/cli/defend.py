"""`defend`: what a study's defenses bring back of the refusals, and at what price."""

from __future__ import annotations

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.options import Overrides, StorePath, StudyName, StudyOut, StudyPath, resolve_studies
from undersong.cli.study import ShowReplies, run_study
from undersong.types import UndersongError


def defend(
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
    show_replies: ShowReplies = False,
) -> None:
    """`run`, and then one table: JSR, over-refusal, usefulness and what is still learned, under every defense."""
    from undersong.models.load_options import Loading
    from undersong.report import defense_table_lines
    from undersong.stages.black_box_models import is_black_box

    loading = Loading(device, dtype, device_map, attention, quantize)
    study_runs = list(resolve_studies(study, out, store, overrides, study_name))
    for study_run in study_runs:
        config, name = study_run.study, f"{study}: {study_run.study.study}"
        if not (config.defenses or config.system_defense or "distant" in config.selection.kinds):
            raise UndersongError(f"{name} names no defense; give `defenses`, or run it with `undersong run`.")
        if all(map(is_black_box, config.models)):
            raise UndersongError(f"{name} has only models that only answer, which cannot be defended; give others.")
    for study_run in study_runs:
        results = run_study(study_run, loading, show_replies)
        for line in defense_table_lines(results):
            typer.echo(line)
