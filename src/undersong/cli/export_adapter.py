"""`undersong export-adapter`: write a LoRA adapter under the module names of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.terminal import echo
from undersong.models.load_options import LoadOptions
from undersong.standalone.options import MODEL_HELP


def export_adapter_command(
    adapter: Annotated[Path, typer.Argument(help="PEFT folder of a LoRA adapter, such as `tune` wrote.")],
    model: Annotated[str, typer.Option("--model", help=f"Model that the adapter belongs to: {MODEL_HELP}.")],
    out: Annotated[Path, typer.Option("--out", help="New PEFT folder.")],
    loading: LoadOptions,
    naming: Annotated[
        str,
        typer.Option(
            "--names",
            help="Names to write. published: those of the published checkpoint, which vLLM and ms-swift use. "
            "transformers4: the module names of transformers 4, which LLaMA-Factory uses.",
        ),
    ] = "published",
) -> None:
    """Write a LoRA adapter under other tools' module names."""
    from undersong.models.adapter_check import check_adapter_weights
    from undersong.models.adapter_export import check_export, export_adapter

    check_export(adapter, out, naming)  # before the model is loaded
    check_adapter_weights(adapter)
    from undersong.models.load import load_model

    target_modules = export_adapter(load_model(model, loading), adapter, out, naming)
    echo(f"{len(target_modules)} modules, such as {target_modules[0]}")
    echo(str(out))
