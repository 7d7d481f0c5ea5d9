"""`undersong audit-adapter`: before and after, the gate's verdict, a page and a card for one adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from undersong.audits.watch.options import PromptOptions
from undersong.cli.output_files import check_output_files
from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import echo
from undersong.models.load_options import LoadOptions
from undersong.standalone.options import MODEL_HELP


def audit_adapter_command(
    adapter: Annotated[Path, typer.Argument(help="PEFT folder of an adapter, or the folder of a fine-tuned model.")],
    model: Annotated[str, typer.Option("--model", help=f"Base that was trained: {MODEL_HELP}.")],
    out: Annotated[Path, typer.Option(help="Folder for page, card, verdicts and replies.")],
    options: PromptOptions,
    loading: LoadOptions,
    change: Annotated[
        str, typer.Option(metavar="LABEL", help="What happened between base and adapter; page and card name it.")
    ] = "fine-tuning",
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Label file of `undersong label`. Run the audit, label the two files in its folder `replies`, and run "
            "the audit again with this option: it then decides on the rates that the labels correct.",
        ),
    ] = None,
) -> None:
    """Audit one adapter: ask before and after, and decide.

    Needs no study and no data: harmful and benign prompts ship. Exit codes are those of `gate`: 0 if every limit holds,
    1 if one is broken, 3 if there are too few prompts to tell, 2 on bad input.
    """
    from undersong.audits.adapter_audit import CARD, DECISION, PAGE, audit_adapter
    from undersong.audits.gate.findings import PASSED
    from undersong.audits.gate.output import gate_sentence
    from undersong.cli.evaluate import rate_lines
    from undersong.evaluation.rates import set_rates
    from undersong.evaluation.verdicts import read_verdicts

    for name in (PAGE, DECISION, CARD):
        check_output_files({"The output": out / name}, {"--labels": labels})
    with ProgressDisplay() as display:
        audit = audit_adapter(
            adapter, model, out, options, loading, change=change, labels=labels, say=echo, watch=display.watch
        )
    for file in audit.decision.compared:
        if file.role == "labels":
            continue
        for rate in set_rates(read_verdicts(Path(file.path)), {}):
            echo(f"{file.role}: {rate_lines(rate)[0]}")
    for finding in audit.decision.findings:
        echo(finding.sentence)
    for note in audit.decision.notes:
        echo(note)
    echo(gate_sentence(audit.decision.findings, change))
    echo(f"{out / PAGE} shows it, and {out / CARD} is the section for a model card.")
    if audit.decision.exit_code != PASSED:
        raise typer.Exit(audit.decision.exit_code)
