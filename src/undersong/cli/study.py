"""The commands on study files: `demo`, `run`, `plan`, `defend`, `status` and `schema`."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.options import (
    Address,
    Attention,
    Device,
    DeviceMap,
    Dtype,
    EngineName,
    Gpus,
    Overrides,
    Quantize,
    StorePath,
    StudyName,
    StudyOut,
    StudyPath,
    StudyRun,
    WorkerCount,
    resolve_studies,
)
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.planning.cost import GpuThroughput
    from undersong.pipeline.planning.plan import StudyStatus


ResultsFolder = Annotated[Path, typer.Option("--out", help="Folder for results and report.")]
ShowReplies = Annotated[bool, typer.Option("--show-replies", help="Show replies to harmful prompts in the report.")]


def demo(
    out: ResultsFolder = Path("out/demo"),
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=20, help="Training seeds an arm.")] = 3,
    model: Annotated[
        str, typer.Option("--model", help="organism:af3, organism:qwen or organism:kimi, and their other bases.")
    ] = "organism:af3",
    show_replies: ShowReplies = False,
) -> None:
    """Audit a packaged organism: `run` on the demo study, some two minutes on a laptop."""
    from undersong.models.load_options import LoadOptions
    from undersong.models.refs import organism_folder
    from undersong.study import packaged_study, with_models, with_seeds

    if not model.startswith("organism:"):
        raise UndersongError(f"The demo audits a packaged organism, not {model!r}; write a study for it, and run that.")
    organism_folder(model.removeprefix("organism:"))
    study = with_models(with_seeds(packaged_study("demo"), seeds), model)
    run_study(StudyRun(study, out, out / "store"), LoadOptions(), show_replies)


def run_command(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    overrides: Overrides = None,
    study_name: StudyName = None,
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
    show_replies: ShowReplies = False,
) -> None:
    """Do everything a study says, from corpora to the report; what is in the store is not done again.

    With --engine ray its arms are spread over workers, each with a model of its own; the rest is done here.
    """
    from undersong.models.load_options import LoadOptions
    from undersong.stages.engine import Engine, check_engine

    compute_engine = Engine(engine, None, address, workers, gpus)
    check_engine(compute_engine)
    loading = LoadOptions(device, dtype, device_map, attention, quantize)
    study_runs = list(resolve_studies(study, out, store, overrides, study_name))
    if arm is not None:
        if engine != "local":
            raise UndersongError("--arm makes one arm here, and --engine ray spreads them all; leave one of them out.")
        _run_arm(study_runs, arm, loading)
        return
    if engine == "ray":
        from undersong.pipeline.arm_jobs import run_arms_on_ray

        run_arms_on_ray(
            [(study_run.study, study_run.out, study_run.store) for study_run in study_runs],
            loading,
            compute_engine,
            _print_progress,
        )
    for study_run in study_runs:
        run_study(study_run, loading, show_replies)


def _run_arm(study_runs: Sequence[StudyRun], arm: str, loading: LoadOptions) -> None:
    """One job of an array: its share of the store, and no results."""
    from undersong.pipeline.arm_jobs import check_arm_name
    from undersong.pipeline.run import run_arm

    for study_run in study_runs:
        check_arm_name(study_run.study, arm)
    for study_run in study_runs:
        times = run_arm(study_run.study, arm, study_run.out, study_run.store, loading=loading, say=_print_progress)
        repetitions = "once" if times == 1 else f"{times} times"
        typer.echo(
            f"{study_run.study.study}: {arm} is in {study_run.store}, its replies {repetitions}; no results are written before "
            "`run` without --arm."
        )


def run_study(study_run: StudyRun, loading: LoadOptions, show_replies: bool) -> dict[str, Any]:
    """Runs it, and says where its report is; the results."""
    from undersong.pipeline.run import run_audit as run_whole

    finished_run = run_whole(
        study_run.study, study_run.out, study_run.store, loading=loading, show_replies=show_replies, say=_print_progress
    )
    typer.echo(f"study {study_run.study.study}")
    typer.echo(f"{finished_run.cpu_seconds:.0f} CPU seconds")
    typer.echo(f"result hash {finished_run.result_hash}")
    typer.echo(f"report {(study_run.out / 'report.html').resolve()}")
    return finished_run.results


def _print_progress(line: str) -> None:
    typer.echo(line, err=True)


def plan(
    study: StudyPath,
    out: StudyOut = None,
    store: StorePath = None,
    overrides: Overrides = None,
    study_name: StudyName = None,
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
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.planning.cost import GpuThroughput

    loading, speed = LoadOptions(device, dtype, device_map, attention, quantize), GpuThroughput(train_rate, token_rate)
    study_runs = list(resolve_studies(study, out, store, overrides, study_name))
    for study_run in study_runs:
        if len(study_runs) > 1:
            typer.echo(f"{study_run.study.study} (what studies of a file share is counted in each)")
        _print_plan(study_run, run_sd, loading, offline, speed)


def _print_plan(
    study_run: StudyRun, run_sd: float | None, loading: LoadOptions, offline: bool, speed: GpuThroughput
) -> None:
    from rich.console import Console
    from rich.table import Table

    from undersong.pipeline.arm_jobs import arm_names
    from undersong.pipeline.planning.plan import memory_lines, plan_study
    from undersong.pipeline.planning.power import design_lines

    study_plan = plan_study(study_run.study, study_run.store, loading, offline, speed)
    table = Table("stage", "in all", "in the store", "to do", "rough CPU seconds")
    for row in study_plan.rows:
        table.add_row(row.stage, str(row.total), str(row.done), str(row.total - row.done), row.cost)
    Console().print(table)
    typer.echo(study_plan.summary)
    plan_notes = (*study_plan.other_loadings, *study_plan.missing_packages, *study_plan.remarks)
    for line in (*plan_notes, *design_lines(study_run.study, run_sd), *memory_lines(study_run.study, loading)):
        typer.echo(line)
    if names := arm_names(study_run.study):
        typer.echo(f"Arms, each a job by itself (run --arm NAME): {', '.join(names)}")


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
    from undersong.models.load_options import LoadOptions
    from undersong.report import defense_table_lines
    from undersong.stages.black_box_models import is_black_box

    loading = LoadOptions(device, dtype, device_map, attention, quantize)
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


def status(
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
) -> None:
    """What of a study is done and what is being made, while it runs; options as of its `run`.  Loads no model."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.output_folder import RESULTS_FILE
    from undersong.pipeline.planning.plan import study_status

    loading = LoadOptions(device, dtype, device_map, attention, quantize)
    for study_run in resolve_studies(study, out, store, overrides, study_name):
        typer.echo(f"{study_run.study.study} in {study_run.store}")
        _print_status(study_status(study_run.study, study_run.store, loading))
        has_results = (study_run.out / RESULTS_FILE).is_file()
        typer.echo(f"results in {study_run.out}" if has_results else f"no results yet in {study_run.out}")


def _print_status(study_status: StudyStatus) -> None:
    for row in study_status.rows:
        typer.echo(f"  {row.stage:<14}{row.done} of {row.total}")
    for line in study_status.in_progress:
        typer.echo(f"being made: {line}")
    for line in study_status.interrupted:
        typer.echo(f"left half-made, and gone on with by the next run: {line}")
    for line in (study_status.summary, *study_status.other_loadings):
        typer.echo(line)


def schema() -> None:
    """Print the JSON schema of study files, by which editors complete keys and mark slips."""
    from undersong.study import study_json_schema

    typer.echo(json.dumps(study_json_schema(), indent=1, ensure_ascii=False))
