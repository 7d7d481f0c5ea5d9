"""`undersong gate`: fail a continuous-integration job whose model is less safe than its limits."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.terminal import echo
from undersong.types import UndersongError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from undersong.integrations.gate.findings import GateFinding
    from undersong.integrations.gate.rises import VerdictPair


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
            help="results.json of `run`, or its folder. For --max-jsr and --max-over-refusal also a verdict file."
        ),
    ] = None,
    before: Annotated[
        Path | None, typer.Option(help="Verdicts of the model before (.parquet, .jsonl), in place of RESULTS.")
    ] = None,
    after: Annotated[Path | None, typer.Option(help="Verdicts of the model after, on the same prompts.")] = None,
    max_jsr_rise: Annotated[
        float | None, typer.Option(min=-1, max=1, help="Largest rise of the JSR over the base model that passes.")
    ] = None,
    max_over_refusal_rise: Annotated[
        float | None,
        typer.Option(min=-1, max=1, help="Largest rise of the refusal rate on benign prompts that passes."),
    ] = None,
    max_margin_loss: Annotated[
        float | None,
        typer.Option(
            help="Largest loss of refusal margin on harmful prompts that passes, in nats; a loss of 0.7 halves the "
            "odds of a refusal."
        ),
    ] = None,
    confidence: Annotated[float, typer.Option(help="Confidence of the one-sided bounds on rises.")] = 0.95,
    max_jsr: Annotated[float | None, typer.Option(min=0, max=1, help="Largest JSR that passes.")] = None,
    max_over_refusal: Annotated[
        float | None, typer.Option(min=0, max=1, help="Largest refusal rate on benign prompts that passes.")
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
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    markdown: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a Markdown summary for a pull request.")
    ] = None,
) -> None:
    """Fail a CI job whose model breaks a limit.

    Exit codes: 0 if every limit holds, 1 if one is broken, 3 if there are too few prompts to tell (it says how many
    would do), 2 on bad input. Replies that failed or could not be judged count against the model, so a crash never
    passes. Of a study, all undefended runs are checked; limits on rates apply to every run at every step.
    """
    limits_rises = any(limit is not None for limit in (max_jsr_rise, max_over_refusal_rise, max_margin_loss))
    limits_rates = max_jsr is not None or max_over_refusal is not None
    if not (limits_rises or limits_rates):
        raise UndersongError(
            "The gate has no limit; give --max-jsr-rise, --max-over-refusal-rise, --max-margin-loss, --max-jsr or "
            "--max-over-refusal."
        )
    if results is not None and (results / "results.json").is_file():  # the folder of a study, as `report` takes it
        results = results / "results.json"
    findings: list[GateFinding] = []
    notes: list[str] = []
    if limits_rates:
        from undersong.integrations.gate.output import rate_findings
        from undersong.integrations.gate.rates import RateLimits, check_rates, rate_check_sentence

        if results is None:
            raise UndersongError("--max-jsr and --max-over-refusal need RESULTS; for two files, limit the rise.")
        rate_check = check_rates(results, RateLimits(max_jsr, max_over_refusal, bound), arm)
        findings += rate_findings(rate_check)
    if limits_rises:
        from undersong.integrations.gate.output import finding_of
        from undersong.integrations.gate.rises import RiseLimits, evaluate_rises

        limits = RiseLimits(max_jsr_rise, max_over_refusal_rise, confidence, max_margin_loss)
        verdict_pairs = _load_verdict_pairs(
            results, before, after, arm, assume_harmful, harmful_prompt_sets or (), notes
        )
        findings += map(finding_of, evaluate_rises(verdict_pairs, limits))
    _write_reports(findings, junit, markdown)
    _print_findings(findings, None if limits_rises else rate_check_sentence(rate_check), notes)


def _load_verdict_pairs(
    results: Path | None,
    before: Path | None,
    after: Path | None,
    arm: str | None,
    assume_harmful: bool,
    harmful_sets: Sequence[str],
    notes: list[str],
) -> dict[str, VerdictPair]:
    """Read the pairs of verdicts to test; a note on what a study holds and is not tested goes to `notes`."""
    from undersong.integrations.gate.inputs import verdicts_from_files, verdicts_from_study

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
    return verdicts_from_files(before, after, assume_harmful, harmful_sets)


def _write_reports(findings: Sequence[GateFinding], junit: Path | None, markdown: Path | None) -> None:
    from undersong.integrations.gate import output

    for path, render in ((junit, output.gate_junit_xml), (markdown, output.gate_markdown)):
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render(findings), encoding="utf-8")


def _print_findings(findings: Sequence[GateFinding], rate_sentence: str | None, notes: Sequence[str]) -> None:
    """Print the verdict and then a line for each limit that is not kept, and exit with the gate's code."""
    from undersong.integrations.gate.findings import PASSED, exit_code
    from undersong.integrations.gate.output import gate_sentence

    code = exit_code([finding.outcome for finding in findings])
    echo(rate_sentence or gate_sentence(findings), err=code != PASSED)
    for finding in findings:
        if finding.outcome != PASSED:
            echo(finding.sentence)
    for note in notes:
        echo(note)
    if code != PASSED:
        raise typer.Exit(code)
