"""`defend`: what a study's defenses bring back of the refusals, and at what price."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.run import Replies, StorePath, run_study
from undersong.types import UndersongError


def defend(
    study: Annotated[Path, typer.Argument(help="A study file (YAML) with `defenses`.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for results and report; default: out/STUDY.")
    ] = None,
    store: StorePath = None,
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
    from undersong.pipeline.speakers import answers_only
    from undersong.study import load_study

    loaded = load_study(study)
    if not (loaded.defenses or loaded.system_defense or "distant" in loaded.selection.kinds):
        raise UndersongError(f"{study} names no defense; give `defenses`, or run it with `undersong run`.")
    if all(map(answers_only, loaded.models)):
        raise UndersongError(f"All models of {study} only answer, and cannot be defended; give the models themselves.")
    loading = Loading(device, dtype, device_map, attention, quantize)
    results = run_study(loaded, out or Path("out") / loaded.study, store, loading, show_replies)
    costs = results["provenance"]["cpu_seconds_by_defense"]
    for line in table(results["defenses"], results["recommended"], costs):
        typer.echo(line)
