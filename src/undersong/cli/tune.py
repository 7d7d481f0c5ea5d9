"""`tune`: LoRA on the decoder from a manifest, alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Model, Quantize


def tune(
    manifest: Annotated[str, typer.Argument(help="Benign samples with answers: JSONL, Parquet, or organism:NAME.")],
    model: Model,
    out: Annotated[Path, typer.Option("--out", help="Folder for the adapters (one PEFT folder a kept step).")],
    selection: Annotated[
        Path | None, typer.Option("--selection", help="A selection.json: train on its ids only.")
    ] = None,
    modality: Annotated[str, typer.Option("--modality", help="audio | text.")] = "audio",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of sample order, adapter and dropout.")] = 0,
    steps: Annotated[
        list[int] | None,
        typer.Option("--step", min=1, help="Keep the adapter at this step; repeatable.  Default: 20 and 40."),
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Samples a step.")] = 8,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="Above 0.")] = 2e-3,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Steps until the learning rate is whole.")] = 5,
    rank: Annotated[int, typer.Option("--rank", min=1, help="Of the LoRA.")] = 8,
    alpha: Annotated[int, typer.Option("--alpha", min=1, help="Of the LoRA.")] = 16,
    target: Annotated[str, typer.Option("--target", help="Column with the reply to learn.")] = "answer",
    system: Annotated[str | None, typer.Option("--system", help="System text of the training prompts.")] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """Fine-tune the language model only; encoder and projector are proved unchanged."""
    from undersong.models.loading import Loading
    from undersong.pipeline.alone import tune_manifest

    kept_steps = sorted(set(steps or [20, 40]))
    recipe = {
        "steps": kept_steps,
        "batch": batch,
        "learning_rate": learning_rate,
        "warmup": warmup,
        "rank": rank,
        "alpha": alpha,
    }
    loading = Loading(device, dtype, device_map, attention, quantize)
    for folder in tune_manifest(manifest, model, out, selection, modality, seed, recipe, target, system, loading):
        typer.echo(str(folder))
    first = kept_steps[0]
    if first <= warmup:
        typer.echo(f"Note: warm-up lasts {warmup} steps, so the adapter of step {first} has hardly learned.")
