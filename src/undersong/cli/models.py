"""`models` and `doctor`: which audio LLMs can be audited, and whether one of them is taken rightly."""

from __future__ import annotations

from typing import Annotated

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize


def models() -> None:
    """The families of audio LLMs and what each supports, the packaged organisms, and what is installed beside."""
    from importlib.util import find_spec

    from undersong.models.families import FAMILIES
    from undersong.models.folders import organism_names

    for family in FAMILIES:
        typer.echo(f"{family.name}: {family.example} (model_type {' or '.join(family.model_types)})")
        typer.echo(f"    hears clips {family.longest}; system text as {family.system}")
        typer.echo(f"    internal encoders: internal, {', '.join(f'internal:{view}' for view in family.views)}")
    typer.echo("Every family: speech and typed prompts in one batch, LoRA on the decoder alone, hidden states.")
    there = "installed" if find_spec("bitsandbytes") else "not installed (pip install 'undersong[quantize]')"
    typer.echo(f"No family needs a package of its own; --quantize needs bitsandbytes: {there}.")
    typer.echo(f"Packaged: {', '.join(f'organism:{name}' for name in organism_names())}")


def doctor(
    model: Annotated[str, typer.Argument(help="organism:NAME, a folder, or a Hugging Face id (ORG/NAME@REVISION).")],
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """Load a model and say yes or no, one line each: is it heard, asked and tuned rightly?"""
    from undersong.models.doctor import examine_model
    from undersong.models.loading import Loading

    loading = Loading(device, dtype, device_map, attention, quantize)
    good = True
    for check in examine_model(model, loading):
        typer.echo(f"{'yes' if check.good else 'no ':<4}{check.name}: {check.said}")
        good &= check.good
    if not good:
        raise typer.Exit(1)
