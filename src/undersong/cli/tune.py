"""`undersong tune`: fine-tune the decoder on a manifest, with LoRA by default."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.options import MANIFEST_HELP, Attention, Device, DeviceMap, Dtype, ModelName, Quantize
from undersong.types import MAX_SEED


def tune(
    manifest: Annotated[str, typer.Argument(help=f"Benign samples with answers: {MANIFEST_HELP}.")],
    model: ModelName,
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters (one PEFT folder a kept step).")],
    selection: Annotated[
        Path | None, typer.Option("--selection", help="A selection.json: train on its ids only.")
    ] = None,
    modality: Annotated[str, typer.Option("--modality", help="audio | text.")] = "audio",
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of sample order, adapter and dropout.")] = 0,
    save_steps: Annotated[
        list[int] | None,
        typer.Option("--step", min=1, help="Keep the adapter at this step; repeatable.  Default: 20 and 40."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option("--preset", help="Published values beneath: kimi-audio | audio-flamingo-3 | qwen2.5-omni."),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples a step; default: 8.")] = None,
    micro_batch: Annotated[
        int | None, typer.Option("--micro-batch", min=1, help="Samples in memory at a time; the result is the same.")
    ] = None,
    checkpointing: Annotated[
        bool, typer.Option("--checkpointing", help="Compute activations again: slower, and far less memory.")
    ] = False,
    validation: Annotated[
        float, typer.Option("--validation", min=0, max=0.9, help="Share held out by whole groups; its loss is logged.")
    ] = 0.0,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Default: 2e-3.")] = None,
    warmup: Annotated[
        int | None, typer.Option("--warmup", min=0, help="Steps until the learning rate is whole; default: 5.")
    ] = None,
    rank: Annotated[int | None, typer.Option("--rank", min=1, help="Of the LoRA; default: 8.")] = None,
    alpha: Annotated[int | None, typer.Option("--alpha", min=1, help="Of the LoRA; default: 16.")] = None,
    method: Annotated[
        str, typer.Option("--method", help="lora | full: all of the decoder's blocks, without an adapter.")
    ] = "lora",
    keep_silent_frames: Annotated[
        float | None,
        typer.Option(
            "--thin",
            min=0,
            max=1,
            help="Share kept of heard frames that say nothing (mini): quicker, and it teaches less; default: all.",
        ),
    ] = None,
    target: Annotated[str, typer.Option("--target", help="Column with the reply to learn.")] = "answer",
    system: Annotated[str | None, typer.Option("--system", help="System text of the training prompts.")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """Fine-tune the language model only; encoder and projector are proved unchanged."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.standalone.tune import tune_manifest
    from undersong.tuning.distributed import finalize_distributed, is_single_process_launch

    if is_single_process_launch():
        typer.echo(
            "Note: accelerate launch started one process, as it does without GPUs whatever --num_processes says, so "
            "one trains; for two on a CPU: torchrun --standalone --nproc-per-node 2 -m undersong tune ...",
            err=True,
        )
    save_step_list = sorted(set(save_steps or [20, 40]))
    optional_settings = {
        "preset": preset,
        "batch": batch,
        "micro_batch": micro_batch,
        "learning_rate": learning_rate if preset or learning_rate is not None else 2e-3,
        "warmup": warmup,
        "rank": rank,
        "alpha": alpha,
        "thin": keep_silent_frames,
    }
    recipe = {"steps": save_step_list, "method": method, "checkpointing": checkpointing, "validation": validation}
    recipe |= {name: value for name, value in optional_settings.items() if value is not None}
    loading = LoadOptions(device, dtype, device_map, attention, quantize)
    adapter_folders = tune_manifest(manifest, model, out, selection, modality, seed, recipe, target, system, loading)
    finalize_distributed()
    for folder in adapter_folders:
        typer.echo(str(folder))
    first_step = save_step_list[0]
    if adapter_folders and preset is None and first_step <= (warmup_steps := 5 if warmup is None else warmup):
        typer.echo(f"Note: warm-up lasts {warmup_steps} steps, so the adapter of step {first_step} has hardly learned.")
