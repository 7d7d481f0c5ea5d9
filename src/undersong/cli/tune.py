"""`undersong tune`: fine-tune the decoder on a manifest, with LoRA by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import echo
from undersong.settings import defaults
from undersong.standalone.options import MANIFEST_HELP, MODEL_HELP, TuneOptions


def tune(
    manifest: Annotated[str, typer.Argument(help=f"Benign samples with answers: {MANIFEST_HELP}.")],
    model: Annotated[str, typer.Option("--model", help=f"Model to fine-tune: {MODEL_HELP}.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters: one PEFT folder for each saved step.")],
    options: TuneOptions,
) -> None:
    """Fine-tune a model's decoder on benign samples.

    Encoder and projector are checked to stay unchanged. Exits with 1 if the training diverged.
    """
    from undersong.standalone.tune import tune_manifest
    from undersong.tuning.distributed import finalize_distributed, is_single_process_launch
    from undersong.tuning.divergence import read_divergence

    if is_single_process_launch():
        echo(
            "Note: accelerate launch started one process, as it does without GPUs whatever --num_processes says, so "
            "one trains; for two on a CPU: torchrun --standalone --nproc-per-node 2 -m undersong tune ...",
            err=True,
        )
    with ProgressDisplay() as say:
        adapter_folders = tune_manifest(manifest, model, out, options, say)
    finalize_distributed()
    for folder in adapter_folders:
        echo(str(folder))
    first_step = min(options.save_steps)
    warmup_steps = defaults.WARMUP_STEPS if options.warmup_steps is None else options.warmup_steps
    if adapter_folders and options.preset is None and first_step <= warmup_steps:
        echo(f"Note: warm-up lasts {warmup_steps} steps, so the adapter of step {first_step} has hardly learned.")
    if adapter_folders and (reason := read_divergence(out)):
        echo(f"undersong: The training diverged: {reason}; use a lower --learning-rate.", err=True)
        raise typer.Exit(1)
