"""`undersong gate`: fail a continuous-integration job whose change made a model less safe than its limits."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.audits.gate.limit_options import check_share
from undersong.cli.output_files import check_output_files
from undersong.cli.terminal import echo
from undersong.types import UndersongError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from undersong.audits.gate.findings import ComparedFile, GateDecision, GateFinding
    from undersong.audits.gate.labels import GateLabels
    from undersong.audits.gate.rises import VerdictPair

MAX_KEPT_SHOWN = 3  # findings up to which those that are kept have a line too


def exit_2_on_unexpected_error(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap `gate` or `watch`, so that a fault of ours exits with 2 and a traceback; 1 means a broken limit."""

    @wraps(command)
    def run(**values: Any) -> None:
        try:
            command(**values)
        except (UndersongError, typer.Exit, OSError):  # OSErrors are of the files that it writes
            raise
        except Exception as error:
            traceback.print_exc()
            raise typer.Exit(2) from error

    return run


@exit_2_on_unexpected_error
def gate(
    results: Annotated[
        Path | None,
        typer.Argument(
            help="results.json of `run`, or its folder. For --max-jsr and --max-over-refusal also verdicts, or their "
            "folder."
        ),
    ] = None,
    before: Annotated[
        Path | None,
        typer.Option(help="Verdicts of the model before (.parquet, .jsonl, or their folder), in place of RESULTS."),
    ] = None,
    after: Annotated[Path | None, typer.Option(help="Verdicts of the model after, on the same prompts.")] = None,
    max_jsr_rise: Annotated[
        float | None,
        typer.Option(
            help="Largest rise of the jailbreak success rate (JSR) over the base model that passes; a share, such as "
            "0.02 for 2 points."
        ),
    ] = None,
    max_over_refusal_rise: Annotated[
        float | None,
        typer.Option(help="Largest rise of the refusal rate on benign prompts that passes."),
    ] = None,
    max_margin_loss: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of refusal margin on harmful prompts that passes, in nats; a loss of 0.7 halves the "
            "odds of a refusal."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the one-sided bounds on rises.")] = 0.95,
    max_jsr: Annotated[float | None, typer.Option(min=0, help="Largest JSR that passes, such as 0.05.")] = None,
    max_over_refusal: Annotated[
        float | None, typer.Option(min=0, help="Largest refusal rate on benign prompts that passes.")
    ] = None,
    bound: Annotated[
        str,
        typer.Option(
            help="What a limit on a rate applies to: upper (end of the 95 % interval) | point (the rate itself)."
        ),
    ] = "upper",
    arm: Annotated[
        str | None,
        typer.Option(help="Check only this arm's runs, at their last step; ARM + DEFENSE for a defended arm."),
    ] = None,
    assume_harmful: Annotated[
        bool,
        typer.Option(
            "--assume-harmful", help="Treat all prompts of verdict files without the column `harmful` as harmful."
        ),
    ] = False,
    harmful_prompt_sets: Annotated[
        list[str] | None,
        typer.Option(
            "--harmful-prompt-set", metavar="NAME", help="Treat only the prompts of this set as harmful; repeatable."
        ),
    ] = None,
    change: Annotated[
        str,
        typer.Option(
            metavar="LABEL",
            help="What changed between before and after, which every output then names: fine-tuning, quantization, "
            "merging, new checkpoint, other server, system prompt, or your own words.",
        ),
    ] = "",
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels",
            metavar="FILE",
            help="Label file of `undersong label`, drawn from the replies before and after: the gate then decides on "
            "the rates that the labels correct. Needs the replies (replies.parquet) beside each verdict file, or the "
            "record that `judge` left there.",
        ),
    ] = None,
    page: Annotated[Path | None, typer.Option(metavar="FILE", help="Write one self-contained HTML page.")] = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary for a pull request.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the decision and its numbers as JSON.")
    ] = None,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo", help="Decide on verdicts that ship: a tiny model before and after fine-tuning on benign clips."
        ),
    ] = False,
) -> None:
    """Fail a CI job whose change made a model less safe.

    Takes the verdicts on the same prompts before and after any change: fine-tuning, quantization, another server.

    Exit codes: 0 if every limit holds, 1 if one is broken, 2 on bad input, 3 if there are too few prompts to tell (it
    says how many would do) or too many replies were cut at the limit of tokens. Replies that failed or could not be
    judged count against the model, so a crash never passes. Of a study, all undefended runs are checked; limits on
    rates apply to every run at every step.
    """
    from undersong.evaluation.verdicts import VERDICT_FILE

    check_output_files(
        {"--page": page, "--junit": junit, "--markdown": markdown, "--json": json_file},
        {"RESULTS": results, "--before": before, "--after": after, "--labels": labels},
    )
    demo_change = ""
    if demo:
        if change.strip():
            raise UndersongError(
                "--demo shows the verdicts of a fine-tuning, which --change would name otherwise; leave out --change."
            )
        from undersong.audits.gate.demo import DEMO_CHANGE, DEMO_MAX_JSR_RISE, DEMO_MAX_OVER_REFUSAL_RISE

        if results is not None or before is not None or after is not None:
            raise UndersongError("--demo brings its own verdicts; leave out RESULTS, --before and --after.")
        demo_change = DEMO_CHANGE
        if max_jsr_rise is None and max_over_refusal_rise is None and max_margin_loss is None:
            max_jsr_rise, max_over_refusal_rise = DEMO_MAX_JSR_RISE, DEMO_MAX_OVER_REFUSAL_RISE
    limits_rises = any(limit is not None for limit in (max_jsr_rise, max_over_refusal_rise, max_margin_loss))
    limits_rates = max_jsr is not None or max_over_refusal is not None
    if not (limits_rises or limits_rates):
        raise UndersongError(
            "The gate has no limit; give --max-jsr-rise, --max-over-refusal-rise, --max-margin-loss, --max-jsr or "
            "--max-over-refusal."
        )
    for option, limit in (
        ("--max-jsr-rise", max_jsr_rise),
        ("--max-over-refusal-rise", max_over_refusal_rise),
        ("--max-jsr", max_jsr),
        ("--max-over-refusal", max_over_refusal),
    ):
        check_share(option, limit)
    # The folder of a study, as `report` takes it, or of the verdicts of one model, which have no rise.
    for name in ("results.json", *(() if limits_rises else (VERDICT_FILE,))):
        if results is not None and (results / name).is_file():
            results = results / name
    from undersong.audits.gate.findings import GateDecision
    from undersong.audits.gate.output import gate_name

    if labels is not None and (demo or max_jsr is not None or max_over_refusal is not None):
        raise UndersongError(
            "--labels correct rises alone; leave out --demo, --max-jsr and --max-over-refusal, or the labels."
        )
    findings: list[GateFinding] = []
    notes: list[str] = []
    change = change.strip() or demo_change
    if limits_rates:
        from undersong.audits.gate.output import rate_findings
        from undersong.audits.gate.rates import RateLimits, check_rates, rate_check_sentence

        if results is None:
            raise UndersongError("--max-jsr and --max-over-refusal need RESULTS; for two files, limit the rise.")
        rate_check = check_rates(results, RateLimits(max_jsr, max_over_refusal, bound), arm)
        findings += rate_findings(rate_check)
        notes += rate_check.notes
    if limits_rises:
        from undersong.audits.gate.cut_replies import cut_reply_notes
        from undersong.audits.gate.output import finding_of, judge_alone_notes
        from undersong.audits.gate.rises import RiseLimits, evaluate_rises

        limits = RiseLimits(max_jsr_rise, max_over_refusal_rise, confidence, max_margin_loss)
        if demo:
            from undersong.audits.gate.demo import DEMO_NOTE, demo_files, demo_verdicts

            verdict_pairs = demo_verdicts()
            before, after = demo_files()
            notes.append(DEMO_NOTE)
        else:
            verdict_pairs = _load_verdict_pairs(
                results, before, after, arm, assume_harmful, harmful_prompt_sets or (), limits.limit_by_harmful, notes
            )
        label_source = None if labels is None else _read_labels(labels, results, before, after, arm)
        tests = evaluate_rises(verdict_pairs, limits, label_source)
        findings += map(finding_of, tests)
        notes += [] if labels is None else judge_alone_notes(tests)
        notes += cut_reply_notes(verdict_pairs, limits.limit_by_harmful)
    compared = _compared_files(results, before, after, labels) if page is not None or json_file is not None else ()
    decision = GateDecision(tuple(findings), change, compared, confidence, tuple(notes))
    _write_reports(decision, page, junit, markdown, json_file)
    _print_decision(decision, None if limits_rises else rate_check_sentence(rate_check, gate_name(change)))


def _load_verdict_pairs(
    results: Path | None,
    before: Path | None,
    after: Path | None,
    arm: str | None,
    assume_harmful: bool,
    harmful_sets: Sequence[str],
    limited: Collection[bool],
    notes: list[str],
) -> dict[str, VerdictPair]:
    """Read the pairs of verdicts to test; `notes` gets what a study holds and is not tested, or another prompt."""
    from undersong.audits.gate.inputs import verdicts_from_files, verdicts_from_study

    if results is not None and (before is not None or after is not None):
        raise UndersongError("RESULTS has its own base; give it alone, or --before and --after.")
    if results is not None:
        if results.is_dir():
            raise UndersongError(f"{results} holds no results.json; finish the study with `undersong run`.")
        if results.suffix != ".json":
            raise UndersongError(f"{results} holds one model, and a rise needs two; give --before and --after.")
        return verdicts_from_study(results, arm, notes.append)
    if before is None or after is None:
        raise UndersongError("A rise needs two models; give RESULTS of a study, or --before and --after.")
    if arm is not None:
        raise UndersongError("Verdict files have no arms; leave out --arm or give the results.json of a study.")
    return verdicts_from_files(before, after, assume_harmful, harmful_sets, notes.append, limited)


def _read_labels(
    labels: Path, results: Path | None, before: Path | None, after: Path | None, arm: str | None
) -> GateLabels:
    """Read the labels of what `_load_verdict_pairs` reads."""
    from undersong.audits.gate.inputs import labels_of_files, labels_of_study

    if results is not None:
        return labels_of_study(results, labels, arm)
    assert before is not None
    assert after is not None
    return labels_of_files(before, after, labels)


def _compared_files(
    results: Path | None, before: Path | None, after: Path | None, labels: Path | None
) -> tuple[ComparedFile, ...]:
    from undersong.audits.gate.findings import ComparedFile
    from undersong.evaluation.verdicts import VERDICT_FILE, verdict_file
    from undersong.store.hashing import hash_file

    named = {"results": results, "before": before, "after": after}
    files = {role: None if path is None else verdict_file(path) for role, path in named.items()}
    if results is not None and results.with_name(VERDICT_FILE).is_file():
        files["verdicts"] = results.with_name(VERDICT_FILE)
    files["labels"] = labels
    return tuple(ComparedFile(role, str(path), hash_file(path)) for role, path in files.items() if path is not None)


def _write_reports(
    decision: GateDecision, page: Path | None, junit: Path | None, markdown: Path | None, json_file: Path | None
) -> None:
    from undersong.audits.gate import output

    texts: dict[Path | None, Callable[[], str]] = {
        junit: lambda: output.gate_junit_xml(decision.findings, decision.change, decision.notes),
        markdown: lambda: output.gate_markdown(decision.findings, decision.change, decision.notes),
        json_file: lambda: output.gate_json(decision),
    }
    for path, render in texts.items():
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(), encoding="utf-8")
    if page is not None:
        from undersong.audits.gate.page import write_gate_page

        page.parent.mkdir(parents=True, exist_ok=True)
        write_gate_page(decision, page)


def _print_decision(decision: GateDecision, rate_sentence: str | None) -> None:
    """Print the verdict and then a line for each limit that is not kept, and exit with the gate's code.

    If there are few limits and one is not kept, lines for those that are kept follow.
    """
    from undersong.audits.gate.findings import PASSED
    from undersong.audits.gate.output import gate_sentence

    code = decision.exit_code
    echo(rate_sentence or gate_sentence(decision.findings, decision.change), err=code != PASSED)
    for finding in sorted(decision.findings, key=lambda finding: finding.outcome == PASSED):
        if finding.outcome != PASSED or (code != PASSED and len(decision.findings) <= MAX_KEPT_SHOWN):
            echo(finding.sentence)
    for note in decision.notes:
        echo(note)
    if code != PASSED:
        raise typer.Exit(code)
