"""`demo`, `run` and `plan`: whole studies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.engine import Address, EngineName, Gpus, WorkerCount
from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.cli.studies import Only, Placed, Sets, StorePath, StudyOut, StudyPath, placed
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.loading import Loading
    from undersong.pipeline.price import Speed

Out = Annotated[Path, typer.Option("--out", help="Folder for results and report.")]
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
    study = with_models(with_seeds(packaged_study("demo"), seeds), model)
    run_study(Placed(study, out, out / "store"), Loading(), show_replies)


def run(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    sets: Sets = None,
    only: Only = None,
    arm: Annotated[
        str | None,
        typer.Option("--arm", metavar="NAME", help="Only make this arm's training and replies (`plan` names them)."),
    ] = None,
    engine: EngineName = "local",
    address: Address = None,
    workers: WorkerCount = None,
    gpus: Gpus = 0.0,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
    show_replies: Replies = False,
) -> None:
    """Do everything a study says, from corpora to the report; what is in the store is not done again.

    With --engine ray its arms are spread over workers, each with a model of its own; the rest is done here.
    """
    from undersong.models.loading import Loading
    from undersong.pipeline.engine import Engine, check_engine

    spread = Engine(engine, None, address, workers, gpus)
    check_engine(spread)
    loading = Loading(device, dtype, device_map, attention, quantize)
    each = list(placed(study, out, store, sets, only))
    if arm is not None:
        if engine != "local":
            raise UndersongError("--arm makes one arm here, and --engine ray spreads them all; leave one of them out.")
        _run_arm(each, arm, loading)
        return
    if engine == "ray":
        from undersong.pipeline.spread import spread_arms

        spread_arms([(one.study, one.out, one.store) for one in each], loading, spread, _say)
    for one in each:
        run_study(one, loading, show_replies)


def _run_arm(each: Sequence[Placed], arm: str, loading: Loading) -> None:
    """One job of an array: its share of the store, and no results."""
    from undersong.pipeline.arm import refuse_arm
    from undersong.pipeline.run import run_arm

    for one in each:
        refuse_arm(one.study, arm)
    for one in each:
        times = run_arm(one.study, arm, one.out, one.store, loading=loading, say=_say)
        asked = "once" if times == 1 else f"{times} times"
        typer.echo(
            f"{one.study.study}: {arm} is in {one.store}, its replies {asked}; no results are written before "
            "`run` without --arm."
        )


def run_study(one: Placed, loading: Loading, show_replies: bool) -> dict[str, Any]:
    """Runs it, and says where its report is; the results."""
    from undersong.pipeline.run import run as run_whole

    finished = run_whole(one.study, one.out, one.store, loading=loading, show_replies=show_replies, say=_say)
    typer.echo(f"study {one.study.study}")
    typer.echo(f"{finished.cpu_seconds:.0f} CPU seconds")
    typer.echo(f"result hash {finished.result_hash}")
    typer.echo(f"report {(one.out / 'report.html').resolve()}")
    return finished.results


def _say(line: str) -> None:
    typer.echo(line, err=True)


def plan(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    sets: Sets = None,
    only: Only = None,
    run_sd: Annotated[
        float | None,
        typer.Option("--run-sd", min=0, max=1, help="Spread (SD) of paired differences of JSR; default: four of them."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no network, and plan with corpora that are not here as if they were."),
    ] = False,
    train_rate: Annotated[
        float | None,
        typer.Option("--train-rate", min=0.001, help="Samples that a GPU trains a second, as you assume."),
    ] = None,
    token_rate: Annotated[
        float | None,
        typer.Option("--token-rate", min=0.001, help="New tokens a second that a GPU says, as you assume."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """What `run` would do, what of it is in the store, and the rough cost.  Loads no model."""
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
    from undersong.models.loading import Loading
    from undersong.pipeline.price import Speed

    loading, speed = Loading(device, dtype, device_map, attention, quantize), Speed(train_rate, token_rate)
    each = list(placed(study, out, store, sets, only))
    for one in each:
        if len(each) > 1:
            typer.echo(f"{one.study.study} (what studies of a file share is counted in each)")
        _plan_one(one, run_sd, loading, offline, speed)


def _plan_one(one: Placed, run_sd: float | None, loading: Loading, offline: bool, speed: Speed) -> None:
    from rich.console import Console
    from rich.table import Table

    from undersong.pipeline.arm import arm_names
    from undersong.pipeline.design import design_lines
    from undersong.pipeline.plan import memory_lines, plan_of

    planned = plan_of(one.study, one.store, loading, offline, speed)
    table = Table("stage", "in all", "in the store", "to do", "rough CPU seconds")
    for row in planned.rows:
        table.add_row(row.stage, str(row.total), str(row.done), str(row.total - row.done), row.cost)
    Console().print(table)
    typer.echo(planned.sentence)
    first = (*planned.otherwise, *planned.uninstalled, *planned.beside)
    for line in (*first, *design_lines(one.study, run_sd), *memory_lines(one.study, loading)):
        typer.echo(line)
    if names := arm_names(one.study):
        typer.echo(f"Arms, each a job by itself (run --arm NAME): {', '.join(names)}")
