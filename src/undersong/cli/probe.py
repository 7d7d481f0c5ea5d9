"""`undersong probe`: find the layers of a fine-tuned model that lost the refusal direction."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.terminal import echo
from undersong.models.load_options import LoadOptions
from undersong.research.probing.options import ProbeOptions


def probe(
    options: ProbeOptions,
    out: Annotated[Path, typer.Option("--out", help="Folder for probe.json and probe.md.")],
    loading: LoadOptions,
) -> None:
    """Find the layers that lost the refusal direction.

    Also tests that direction as the cause, and names the parts of the adapter.
    """
    from undersong.research.probing.run import run_probe

    results = run_probe(options, out, loading)
    for line in (*results["findings"], *results["notes"]):
        echo(line)
    echo(str(out / "probe.md"))
