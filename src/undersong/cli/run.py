"""`demo`, `run` and `plan`: whole studies."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.loading import Loading
    from undersong.study import Study

Out = Annotated[Path, typer.Option("--out", help="Folder for results and report.")]
StorePath = Annotated[Path | None, typer.Option("--store", help="Folder of artefacts; default: OUT/store.")]
Replies = Annotated[bool, typer.Option("--show-replies", help="Show replies to harmful prompts in the report.")]


def demo(
    out: Out = Path("out/demo"),
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=20, help="Training seeds an arm.")] = 3,
    model: Annotated[
        str, typer.Option("--model", help="organism:af3, organism:qwen or organism:kimi, and their other bases.")
    ] = "organism:af3",
    show_replies: Replies = False,
) -> None:
    """Audit a packaged organism: `run` on the demo study, some two minutes on a laptop."""
    from undersong.models.folders import organism_folder
    from undersong.models.loading import Loading
    from undersong.study import packaged_study, with_models, with_seeds

    if not model.startswith("organism:"):
        raise UndersongError(f"The demo audits a packaged organism, not {model!r}; write a study for it, and run that.")
    organism_folder(model.removeprefix("organism:"))
    run_study(with_models(with_seeds(packaged_study("demo"), seeds), model), out, None, Loading(), show_replies)


def run(
    study: Annotated[Path, typer.Argument(help="A study file (YAML).")],
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
    """Do everything a study says, from corpora to the report; what is in the store is not done again."""
    from undersong.models.loading import Loading
    from undersong.study import load_study

    loaded = load_study(study)
    loading = Loading(device, dtype, device_map, attention, quantize)
    run_study(loaded, out or Path("out") / loaded.study, store, loading, show_replies)


def run_study(study: Study, out: Path, store: Path | None, loading: Loading, show_replies: bool) -> dict[str, Any]:
    """Runs it, and says where its report is; the results."""
    from undersong.pipeline.run import run as run_whole

    finished = run_whole(study, out, store, loading=loading, show_replies=show_replies, say=_say)
    typer.echo(f"{finished.cpu_seconds:.0f} CPU seconds")
    typer.echo(f"result hash {finished.result_hash}")
    typer.echo(f"report {(out / 'report.html').resolve()}")
    return finished.results


def _say(line: str) -> None:
    typer.echo(line, err=True)


def plan(
    study: Annotated[Path, typer.Argument(help="A study file (YAML).")],
    store: StorePath = None,
    run_sd: Annotated[
        float | None,
        typer.Option("--run-sd", min=0, max=1, help="Spread (SD) of paired differences of JSR; default: four of them."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """What `run` would do, what of it is in the store, and the rough cost.  Loads no model."""
    from rich.console import Console
    from rich.table import Table

    from undersong.models.loading import Loading
    from undersong.pipeline.design import design_lines
    from undersong.pipeline.plan import memory_lines, plan_of
    from undersong.study import load_study

    loaded = load_study(study)
    loading = Loading(device, dtype, device_map, attention, quantize)
    planned = plan_of(loaded, store or Path("out") / loaded.study / "store", loading)
    table = Table("stage", "in all", "in the store", "to do", "rough CPU seconds")
    for row in planned.rows:
        table.add_row(row.stage, str(row.total), str(row.done), str(row.total - row.done), row.cost)
    Console().print(table)
    typer.echo(planned.sentence)
    for line in (*design_lines(loaded, run_sd), *memory_lines(loaded, loading)):
        typer.echo(line)
