"""`undersong compare BEFORE AFTER...`: paired comparison of the verdict files of two or more models."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from undersong.cli.terminal import cell, echo, echo_json, echo_lines, print_table
from undersong.types import UndersongError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from undersong.evaluation.comparison import VerdictComparison
    from undersong.evaluation.corrected_rates import CorrectedComparison
    from undersong.evaluation.multi_model_comparison import BaselineComparison
    from undersong.types import Verdict

RATE_COLUMNS, DIFFERENCE_COLUMNS = (0, 1, 2, 7, 8), (0, 3, 4, 5, 6)  # of TABLE_HEADER
MAX_NAME_WIDTH, MAX_HEADER_WIDTH = 18, 12


def compare_command(
    before: Annotated[
        Path, typer.Argument(help="Verdicts of the first model: .parquet, .jsonl, or the folder that `evaluate` wrote.")
    ],
    after: Annotated[
        list[Path], typer.Argument(help="Verdicts of the second model on the same prompts; several files give a table.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    judge: Annotated[str | None, typer.Option(help="Judge to compare by, if a file has several.")] = None,
    prompt_set: Annotated[
        str | None, typer.Option("--prompt-set", help="Prompt set to compare on, if a file has several.")
    ] = None,
    modality: Annotated[
        str | None, typer.Option(help="Modality of the prompts, if a file has both: audio | text.")
    ] = None,
    system: Annotated[str | None, typer.Option(help="Name of the system prompt, if a file has several.")] = None,
    allow_unpaired: Annotated[
        bool, typer.Option("--allow-unpaired", help="Leave out prompts that only one file has.")
    ] = False,
    labels: Annotated[
        Path | None,
        typer.Option("--labels", metavar="FILE", help="Labels by `undersong label`, by which the rates are corrected."),
    ] = None,
) -> None:
    """Compare models prompt by prompt, with intervals.

    Prints the jailbreak success rate (JSR), McNemar's exact test and paired intervals. The p values of several models
    are corrected by Holm's method.
    """
    from undersong.evaluation.multi_model_comparison import compare_many, with_file_notes
    from undersong.evaluation.verdicts import read_verdicts

    if len(set(after)) < len(after):
        raise UndersongError("A file stands twice after the first; name every model once.")
    baseline_name, *names = short_file_names([before, *after])
    selection = {"judge": judge, "set": prompt_set, "modality": modality, "system": system}
    baseline, tables = read_verdicts(before), {name: read_verdicts(file) for name, file in zip(names, after)}
    arms = compare_many(baseline, tables, baseline_name=baseline_name, allow_unpaired=allow_unpaired, **selection)
    files = dict(zip(names, after))
    arms = tuple(
        with_file_notes(arm, (before, files[arm.name]), (baseline, tables[arm.name]), **selection) for arm in arms
    )
    corrected = {} if labels is None else _correct_comparisons(before, files, labels, selection)
    if as_markdown:
        from undersong.evaluation.multi_model_comparison import comparison_markdown

        echo_lines(comparison_markdown(arms, baseline_name))
    elif len(arms) == 1:
        _print_comparison(arms[0].comparison, as_json, corrected)
    else:
        _print_comparisons(arms, baseline_name, as_json, corrected)
    if not as_json:
        _print_corrected(corrected)


def _correct_comparisons(
    before: Path, after: Mapping[str, Path], labels: Path, selection: Mapping[str, str | None]
) -> dict[str, CorrectedComparison]:
    """Correct the comparison of each model by labels."""
    from undersong.evaluation.corrected_rates import correct_comparison
    from undersong.evaluation.labels import find_replies_hash, read_sample
    from undersong.evaluation.verdicts import read_verdicts, select_verdicts

    sample = read_sample(labels)

    def select(file: Path) -> list[Verdict]:
        return select_verdicts(read_verdicts(file), table_name=str(file), **selection)

    return {
        name: correct_comparison(
            select(before), select(file), sample, (find_replies_hash(before), find_replies_hash(file))
        )
        for name, file in after.items()
    }


def _print_corrected(corrected: Mapping[str, CorrectedComparison]) -> None:
    from undersong.evaluation.corrected_rates import comparison_lines

    for name, comparison in corrected.items():
        for line in comparison_lines(comparison):
            echo(f"{name}: {line}" if len(corrected) > 1 else line)


def short_file_names(files: Sequence[Path]) -> list[str]:
    """Return what tells the files apart: their paths without the file name and the first folders that all share."""
    parts = [file.parts for file in files]
    if len({names[-1] for names in parts}) == 1 and all(len(names) > 1 for names in parts):
        parts = [names[:-1] for names in parts]
    while len({names[0] for names in parts}) == 1 and all(len(names) > 1 for names in parts):
        parts = [names[1:] for names in parts]
    return [str(Path(*names)) for names in parts]


def _print_comparison(
    comparison: VerdictComparison, as_json: bool, corrected: Mapping[str, CorrectedComparison]
) -> None:
    from undersong.evaluation import corrected_rates
    from undersong.evaluation.comparison_report import comparison_json, comparison_sentence

    if as_json:
        content = comparison_json(comparison)
        for by_labels in corrected.values():  # of the one model
            content["corrected"] = corrected_rates.corrected_comparison_json(by_labels)
        echo_json(content, indent=2)
        return
    from undersong.settings.judge_names import RATE_GLOSSES

    _print_table(comparison)
    echo(comparison_sentence(comparison))
    echo(f"{RATE_GLOSSES[comparison.metric]}.")
    for note in comparison.notes:
        echo(f"Note: {note}")


def _print_comparisons(
    arms: Sequence[BaselineComparison],
    baseline_name: str,
    as_json: bool,
    corrected: Mapping[str, CorrectedComparison],
) -> None:
    from undersong.evaluation import corrected_rates
    from undersong.evaluation.multi_model_comparison import (
        comparison_summary_lines,
        comparison_table_rows,
        multi_model_json,
    )
    from undersong.settings.judge_names import RATE_GLOSSES

    if as_json:
        by_labels = {name: corrected_rates.corrected_comparison_json(one) for name, one in corrected.items()}
        echo_json(multi_model_json(arms) | ({"corrected": by_labels} if by_labels else {}), indent=2)
        return
    rows = comparison_table_rows(arms, baseline_name)
    # two tables, because a terminal of eighty columns has no room for nine columns
    rates = _comparison_table("Rates", RATE_COLUMNS, rows)
    differences = _comparison_table(f"Differences from {cell(baseline_name)}", DIFFERENCE_COLUMNS, rows[1:])
    print_table(rates, differences)
    for line in comparison_summary_lines(arms):
        echo(line)
    echo(f"{RATE_GLOSSES[arms[0].comparison.metric]}.")


def _comparison_table(title: str, columns: Sequence[int], rows: Sequence[Sequence[str]]) -> Table:
    """Table of some columns of the comparison; one that says nothing of any model is left out."""
    from rich.table import Table

    from undersong.evaluation.multi_model_comparison import TABLE_HEADER

    table = Table(title=title, title_justify="left")
    shown = [i for i in columns if any(row[i] not in ("", "0, 0, 0") for row in rows)]
    for i in shown:
        header = _wrapped_header(TABLE_HEADER[i].replace(" (clustered)", ""))
        if i == 0:  # a wrapped name can still be distinguished from others, unlike a truncated one
            table.add_column(header, overflow="fold", width=min(MAX_NAME_WIDTH, max(len(row[0]) for row in rows)))
        else:
            words = " ".join([header, *(row[i] for row in rows)]).split()
            table.add_column(header, min_width=max(map(len, words)))
    for row in rows:
        table.add_row(*(cell(row[i]) for i in shown))
    return table


def _wrapped_header(text: str) -> str:
    return textwrap.fill(text, MAX_HEADER_WIDTH, break_long_words=False)


def _print_table(comparison: VerdictComparison) -> None:
    from rich.table import Table

    from undersong.evaluation.multi_model_comparison import TABLE_HEADER, lost_reply_cells
    from undersong.settings.judge_names import RATE_LABELS

    paired = comparison.paired
    count_header = "refused" if comparison.metric == "refusal_rate" else "jailbroken"
    lost_headers = map(_wrapped_header, TABLE_HEADER[-2:])
    table = Table("", count_header, RATE_LABELS[comparison.metric], "95 %", *lost_headers)
    rows = (("before", paired.before, comparison.before), ("after", paired.after, comparison.after))
    for name, rate, summary in rows:
        table.add_row(
            name,
            f"{rate.successes} of {paired.n}",
            f"{rate.rate:.1%}",
            f"{rate.low:.1%} to {rate.high:.1%}",
            *lost_reply_cells(summary),
        )
    print_table(table)
