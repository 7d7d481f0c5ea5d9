"""The commands on study files: `run`, `plan`, `defend`, `status` and `schema`."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.options import StudyArguments, StudyRun, resolve_studies
from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import cell, echo, echo_json, print_table
from undersong.models.load_options import LoadOptions
from undersong.options import OptionGroup
from undersong.stages.engine import Engine
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.study.planning.cost import GpuThroughput
    from undersong.study.planning.plan import StudyStatus


RegistrationFile = Annotated[
    Path | None,
    typer.Option(
        "--registration", metavar="FILE", help="Registration of the study. Default: registration.json in --out."
    ),
]
ShowReplies = Annotated[bool, typer.Option("--show-replies", help="Show replies to harmful prompts in the report.")]


def run_command(
    arguments: StudyArguments,
    *,
    arm: Annotated[
        str | None,
        typer.Option("--arm", metavar="NAME", help="Make only this arm's training and replies; `plan` lists the arms."),
    ] = None,
    registration: RegistrationFile = None,
    engine: Annotated[Engine, OptionGroup(only=("name", "address", "workers", "gpus"))],
    loading: LoadOptions,
    show_replies: ShowReplies = False,
) -> None:
    """Run a study from corpora to report.

    What the store already holds is not computed again. With --engine ray, workers train and evaluate the arms, each
    with its own model; the rest runs here.
    """
    from undersong.stages.engine import check_engine

    check_engine(engine)
    study_runs = list(resolve_studies(arguments))
    _check_single_registration(registration, study_runs)
    if arm is not None or engine.name != "local":
        _check_listed_seeds(study_runs)
    if arm is not None:
        if engine.name != "local":
            raise UndersongError("--arm makes one arm here, and --engine ray spreads them all; leave one of them out.")
        _run_arm(study_runs, arm, loading, registration)
        return
    if engine.name == "ray":
        from undersong.stages.output_folder import report_kept_artifacts
        from undersong.study.arm_jobs import run_arms_on_ray

        with report_kept_artifacts(*(study_run.store for study_run in study_runs)), ProgressDisplay() as say:
            run_arms_on_ray(
                [(study_run.study, study_run.out, study_run.store) for study_run in study_runs],
                loading,
                engine,
                say,
            )
    for study_run in study_runs:
        run_study(study_run, loading, show_replies, registration)


def _check_single_registration(registration: Path | None, study_runs: Sequence[StudyRun]) -> None:
    if registration is not None and len(study_runs) > 1:
        raise UndersongError(
            f"--registration names one file, and {len(study_runs)} studies were named; take one by --only, or leave "
            "the option out for a registration in each study's folder."
        )


def _check_listed_seeds(study_runs: Sequence[StudyRun]) -> None:
    for study_run in study_runs:
        if study_run.study.tuning.sequential_seeds is not None:
            raise UndersongError(
                f"Study {study_run.study.study} decides after each seed whether to go on, so its arms cannot be run "
                "apart; leave out --arm and --engine, or give tuning.seeds a list."
            )


def _run_arm(study_runs: Sequence[StudyRun], arm: str, loading: LoadOptions, registration: Path | None) -> None:
    """One job of an array: its share of the store, and no results."""
    from undersong.stages.output_folder import report_kept_artifacts
    from undersong.study.arm_jobs import check_arm_name
    from undersong.study.run import run_arm

    for study_run in study_runs:
        check_arm_name(study_run.study, arm)
    for study_run in study_runs:
        with report_kept_artifacts(study_run.store), ProgressDisplay() as say:
            times = run_arm(
                study_run.study,
                arm,
                study_run.out,
                study_run.store,
                loading=loading,
                registration=registration,
                say=say,
            )
        repetitions = "once" if times == 1 else f"{times} times"
        echo(
            f"{study_run.study.study}: {arm} is in {study_run.store}, its replies {repetitions}; no results are "
            "written before "
            "`run` without --arm."
        )


def run_study(
    study_run: StudyRun,
    loading: LoadOptions,
    show_replies: bool,
    registration: Path | None = None,
    verb: str = "run",
) -> dict[str, Any]:
    """Run a study, print its answer and where its report is, and return the results."""
    from undersong.report.answer import answer_lines
    from undersong.stages.output_folder import report_kept_artifacts
    from undersong.study.run import run_audit as run_whole

    study, out, store = study_run.study, study_run.out, study_run.store
    with report_kept_artifacts(store), ProgressDisplay() as say:
        finished_run = run_whole(
            study,
            out,
            store,
            loading=loading,
            show_replies=show_replies,
            registration=registration,
            say=say,
            verb=verb,
        )
    echo(f"study {study_run.study.study}")
    echo(f"{finished_run.cpu_seconds:.0f} CPU seconds")
    echo(f"result hash {finished_run.result_hash}")
    for line in _registration_lines(finished_run.results):
        echo(line)
    for line in answer_lines(finished_run.results):
        echo(line)
    echo(f"report {(study_run.out / 'report.html').resolve()}")
    return finished_run.results


def _registration_lines(results: dict[str, Any]) -> tuple[str, ...]:
    from undersong.research.report.registration import registration_sentences
    from undersong.results.schema_registration import RegistrationRecord

    content = results["provenance"]["registration"]
    return () if content is None else registration_sentences(RegistrationRecord.model_validate(content))


def plan(
    arguments: StudyArguments,
    *,
    run_sd: Annotated[
        float | None,
        typer.Option(
            "--run-sd",
            min=0,
            max=1,
            help="Standard deviation of paired JSR differences between runs. Default: shown for four values.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Use no network; corpora that are not on this machine are planned by name."),
    ] = False,
    train_samples_per_second: Annotated[
        float | None,
        typer.Option("--train-samples-per-second", min=0.001, help="Assumed speed of training on a GPU."),
    ] = None,
    tokens_per_second: Annotated[
        float | None,
        typer.Option("--tokens-per-second", min=0.001, help="Assumed speed of generation on a GPU."),
    ] = None,
    register: Annotated[
        bool,
        typer.Option(
            "--register", help="Register the study: write what is asked, by which rules, and what the store knows."
        ),
    ] = False,
    registration: RegistrationFile = None,
    loading: LoadOptions,
) -> None:
    """Show what `run` would do, and what it would cost.

    Also shows what the store already holds. The cost is rough. Loads no model.
    """
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub's client
    from undersong.study.planning.cost import GpuThroughput

    speed = GpuThroughput(train_samples_per_second, tokens_per_second)
    study_runs = list(resolve_studies(arguments))
    _check_single_registration(registration, study_runs)
    if registration is not None and not register:
        raise UndersongError("plan writes a --registration only with --register; add it, or leave both out.")
    for study_run in study_runs if register and registration is None else ():
        from undersong.study.study_folder import check_study_folder

        check_study_folder(study_run.out, study_run.study.study, study_run.store)  # before corpora are read
    for study_run in study_runs:
        if len(study_runs) > 1:
            echo(f"{study_run.study.study} (what studies of a file share is counted in each)")
        _print_plan(study_run, run_sd, loading, offline, speed, None if register else registration)
        if register:
            _register(study_run, registration, loading, offline)


def _register(study_run: StudyRun, registration: Path | None, loading: LoadOptions, offline: bool) -> None:
    from undersong.research.registration import register_study, write_registration
    from undersong.study.run import time_stamp
    from undersong.study.study_folder import REGISTRATION_FILE

    file = registration or study_run.out / REGISTRATION_FILE
    content = register_study(study_run.study, study_run.store, loading, time_stamp(time.time()), offline)
    write_registration(content, file)
    known = sum(question.known > 0 for question in content.questions)
    echo(f"registered {len(content.questions)} questions, {known} of them with an answer in the store")
    echo(f"registration {file.resolve()}")
    echo(f"digest {content.digest} (publish it, so that others can check the date)")


def _print_plan(
    study_run: StudyRun,
    run_sd: float | None,
    loading: LoadOptions,
    offline: bool,
    speed: GpuThroughput,
    registration: Path | None,
) -> None:
    from rich.table import Table

    from undersong.research.registration import registration_lines
    from undersong.study.arm_jobs import arm_names
    from undersong.study.planning.plan import memory_lines, plan_study
    from undersong.study.planning.power import design_lines

    study_plan = plan_study(study_run.study, study_run.store, loading, offline, speed)
    table = Table("stage", "in all", "in the store", "to do", "rough CPU seconds")
    for row in study_plan.rows:
        table.add_row(*map(cell, (row.stage, row.total, row.done, row.total - row.done, row.cost)))
    print_table(table)
    echo(study_plan.summary)
    plan_notes = (*study_plan.other_loadings, *study_plan.missing_packages, *study_plan.remarks)
    for line in (*plan_notes, *design_lines(study_run.study, run_sd), *memory_lines(study_run.study, loading)):
        echo(line)
    for line in registration_lines(registration, study_run.out, study_run.study, loading):
        echo(line)
    if names := arm_names(study_run.study):
        echo(f"Arms, each a job by itself (run --arm NAME): {', '.join(names)}")


def defend(
    arguments: StudyArguments,
    loading: LoadOptions,
    show_replies: ShowReplies = False,
) -> None:
    """Run a study and print one table of its defenses.

    The table has JSR, over-refusal, usefulness and what is still learned.
    """
    from undersong.report.markdown import defense_table_lines
    from undersong.stages.black_box_models import is_black_box

    study_runs = list(resolve_studies(arguments))
    for study_run in study_runs:
        config, name = study_run.study, f"{arguments.study}: {study_run.study.study}"
        if not (config.defenses or config.system_defense or "distant" in config.selection.kinds):
            raise UndersongError(f"{name} names no defense; give `defenses`, or run it with `undersong run`.")
        if all(map(is_black_box, config.models)):
            raise UndersongError(f"{name} has only models that only answer, which cannot be defended; give others.")
    for study_run in study_runs:
        results = run_study(study_run, loading, show_replies)
        for line in defense_table_lines(results):
            echo(line)


def status(
    arguments: StudyArguments,
    loading: LoadOptions,
) -> None:
    """Show which parts of a study are done or in progress.

    Loads no model. Give the options of its `run`.
    """
    from undersong.research.registration import registration_lines
    from undersong.study.planning.plan import study_status
    from undersong.study.study_folder import RESULTS_FILE

    for study_run in resolve_studies(arguments):
        echo(f"{study_run.study.study} in {study_run.store}")
        _print_status(study_status(study_run.study, study_run.store, loading))
        for line in registration_lines(None, study_run.out, study_run.study, loading):
            echo(line)
        has_results = (study_run.out / RESULTS_FILE).is_file()
        echo(f"results in {study_run.out}" if has_results else f"no results yet in {study_run.out}")


def _print_status(study_status: StudyStatus) -> None:
    for row in study_status.rows:
        echo(f"  {row.stage:<14}{row.done} of {row.total}")
    for line in study_status.in_progress:
        echo(f"being made: {line}")
    for line in study_status.interrupted:
        echo(f"left half-made, and gone on with by the next run: {line}")
    for line in (study_status.summary, *study_status.other_loadings):
        echo(line)


def schema() -> None:
    """Print the JSON schema of study files.

    Editors use it to complete and check keys.
    """
    from undersong.study.json_schema import study_json_schema

    echo_json(study_json_schema(), indent=1)
