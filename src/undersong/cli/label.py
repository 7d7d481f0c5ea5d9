"""`undersong label REPLIES...`: a local page to label a random sample of replies, blind to the model that gave them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.cli.terminal import echo
from undersong.standalone.options import MANIFEST_HELP
from undersong.types import MAX_SEED


def label(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Replies of one or several models: .jsonl or .parquet, the folders of `evaluate`, or of a study."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Label file to start or to go on with (.jsonl).")],
    n: Annotated[int, typer.Option("--n", min=1, help="Number of replies to label, of all models together.")] = 100,
    judge: Annotated[
        str, typer.Option(help="Judge by whose verdicts the sample is stratified; the page does not show them.")
    ] = "keyword",
    manifests: Annotated[
        list[str] | None,
        typer.Option("--manifest", help=f"Prompts, if the files do not have their texts; repeatable: {MANIFEST_HELP}."),
    ] = None,
    prompt_set: Annotated[
        str,
        typer.Option(
            "--prompt-set",
            metavar="NAME",
            help="Name of the prompt set, if the files do not say. Of a study, label it alone.",
        ),
    ] = "",
    arm: Annotated[str | None, typer.Option(help="Of a study, label this arm and the base alone.")] = None,
    store: Annotated[Path | None, typer.Option(help="Store of a study. Default: its own.")] = None,
    harmful: Annotated[
        bool, typer.Option("--harmful/--benign", help="Kind of the prompts, if the files do not say.")
    ] = True,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Seed of the order, for a new label file.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine. Default: a free one.")] = 0,
) -> None:
    """Label a random sample of replies on a local page.

    The page shows replies to harmful prompts in full, because somebody must read them to know how often the judge errs.
    It does not show which model gave a reply. Labels are saved one by one, and the same command goes on.
    """
    from undersong.stages.output_folder import report_kept_work
    from undersong.standalone.labeling import LabelServer, open_label_task

    task = open_label_task(
        files, out, n=n, seed=seed, judge=judge, manifests=manifests or (), harmful=harmful, prompt_set=prompt_set,
        arm=arm, store=store,
    )  # fmt: skip
    if task.n_labeled < task.total:
        echo(f"{task.n_labeled} of {task.total} replies are labelled. Replies to harmful prompts are shown in full.")
        with (
            LabelServer(task, port) as server,
            report_kept_work(
                lambda: f"{server.task.n_labeled} of {task.total} labels are in {out}, and the same command goes on"
            ),
        ):
            echo(f"Open {server.url} in a browser on this machine; Ctrl-C stops.")
            server.serve_forever()
            task = server.task
    echo(f"{task.n_labeled} of {task.total} replies are labelled; use them with --labels {out}.")
    echo(str(out))
