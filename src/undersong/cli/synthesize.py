"""`undersong synthesize RESULTS...`: one contrast of several studies put together by random effects."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from undersong.cli.report import report_target, result_files
from undersong.cli.terminal import cell, echo, echo_json, print_table
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.results.schema_synthesis import Synthesis, SynthesisAnalysis

PAGE_NAME = "synthesis.html"


def synthesize_command(
    results: Annotated[
        list[Path],
        typer.Argument(metavar="RESULTS", help="results.json files, or folders that `run` wrote, of several studies."),
    ],
    contrast: Annotated[
        str,
        typer.Option(
            "--contrast",
            help="closest-base, random-base, distant-base, closest-random, closest-distant or defense:NAME.",
        ),
    ] = "closest-base",
    modality: Annotated[
        str | None, typer.Option("--modality", help="Modality of the prompts: audio | text. Default: each by itself.")
    ] = None,
    prompt_set: Annotated[
        str | None, typer.Option("--prompt-set", help="Harmful prompt set. Default: harm, or else a study's first.")
    ] = None,
    axis: Annotated[str | None, typer.Option("--axis", help="Take only arms of this axis.")] = None,
    fraction: Annotated[float | None, typer.Option("--fraction", help="Take only arms of this share.")] = None,
    trained_on: Annotated[
        Literal["audio", "text", "both"] | None,
        typer.Option("--trained-on", help="Take arms trained on audio, on text, or both. Needed if there are both."),
    ] = None,
    method: Annotated[
        Literal["paule-mandel", "dersimonian-laird"],
        typer.Option("--method", help="Estimator of the variance between units."),
    ] = "paule-mandel",
    allow_differences: Annotated[
        bool,
        typer.Option("--allow-differences", help="Put studies together although their rates are not comparable."),
    ] = False,
    out: Annotated[
        Path, typer.Option("--out", help="HTML file; the numbers go to a JSON file of the same name.")
    ] = Path(PAGE_NAME),
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Put one contrast of several studies together.

    Random effects over bases: mean with interval, heterogeneity, prediction interval and a forest plot.
    """
    from undersong.research.report.synthesis import write_synthesis
    from undersong.research.results.synthesis import SynthesisOptions, study_differences, synthesize
    from undersong.results.files import read_results_file
    from undersong.results.schema import parse_results
    from undersong.study.results.run_contrasts import ArmFilter, check_contrast

    check_contrast(contrast)
    target = report_target(out, PAGE_NAME)
    if target.suffix == ".json":
        raise UndersongError(f"The page is HTML, and {target} is the name of its numbers; give --out a name in .html.")
    files = [file for path in results for file in result_files(path)]
    studies = [
        (str(file.parent if file.name == "results.json" else file), parse_results(read_results_file(file), str(file)))
        for file in files
    ]
    is_both = trained_on == "both"
    arms = ArmFilter(axis, fraction, None if is_both else trained_on, is_both)
    options = SynthesisOptions(contrast, prompt_set, modality, arms, method)
    differences = study_differences(studies, options)
    if any(differences) and not allow_differences:
        for (label, _), phrases in zip(studies, differences):
            for phrase in phrases:
                echo(f"{label}: {phrase}", err=True)
        raise UndersongError(
            f"{sum(map(bool, differences))} of {len(studies)} studies are not comparable with {studies[0][0]}; leave "
            "them out, or give --allow-differences."
        )
    synthesis = synthesize(studies, options)
    data = target.with_suffix(".json")
    write_synthesis(synthesis, target, data)
    if as_json:
        echo_json(synthesis.model_dump(mode="json"), indent=2)
        return
    _print_synthesis(synthesis)
    echo(f"report {target.resolve()}")
    echo(f"numbers {data.resolve()}")


def _print_synthesis(synthesis: Synthesis) -> None:
    from undersong.pages.formatting import modality_label
    from undersong.research.report.synthesis import arms_sentences, synthesis_sentences

    echo(synthesis.question)
    for study in synthesis.studies:
        for phrase in study.differences:
            echo(f"Not comparable: {study.name}: {phrase}")
    for analysis in synthesis.analyses:
        _print_estimates(analysis, f"{modality_label(analysis.modality)} prompts".capitalize())
        for sentence in (*synthesis_sentences(analysis), *arms_sentences(analysis), *analysis.notes):
            echo(sentence)
    for note in synthesis.notes:
        echo(f"Note: {note}")


def _print_estimates(analysis: SynthesisAnalysis, title: str) -> None:
    from rich.table import Table

    from undersong.research.report.synthesis import ESTIMATE_HEADINGS, estimate_cells

    table = Table(*ESTIMATE_HEADINGS, title=title, title_justify="left")
    for estimate in analysis.estimates:
        table.add_row(*map(cell, estimate_cells(estimate)))
    print_table(table)
