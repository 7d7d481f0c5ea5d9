"""Comparison of several models with one baseline on the same prompts, Holm-corrected as one family, as table, Markdown
and JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from undersong.evaluation.comparison import (
    SCOPE,
    VerdictComparison,
    VerdictSummary,
    compare_verdicts,
)
from undersong.evaluation.comparison_report import comparison_json, lost_replies_sentence
from undersong.evaluation.generation_settings import setting_notes, token_limit_note
from undersong.evaluation.same_content import same_content_note
from undersong.evaluation.verdicts import select_verdicts
from undersong.phrases import capitalize_first
from undersong.settings.judge_names import RATE_LABELS
from undersong.statistics.multiple_testing import holm
from undersong.statistics.rates import Rate
from undersong.types import UndersongError, Verdict


@dataclass(frozen=True, slots=True)
class BaselineComparison:
    """Comparison of one model with the baseline; `p_adjusted` is its clustered p value, Holm-corrected over all
    models."""

    name: str
    comparison: VerdictComparison
    p_adjusted: float


def compare_many(
    before: Sequence[Verdict],
    after: Mapping[str, Sequence[Verdict]],
    *,
    baseline_name: str = "BEFORE",
    **selection: Any,
) -> tuple[BaselineComparison, ...]:
    """Compare each model's verdicts with the baseline.

    Args:
        before: Verdicts of the baseline.
        after: Verdicts of each model, by name.
        baseline_name: Name of the baseline in messages.
        **selection: Keyword arguments of `compare_verdicts`.

    Raises:
        UndersongError: There is no model, `compare_verdicts` fails, or one model's prompts are harmful and another's
            benign, so that their rates are no family.
    """
    comparisons = {
        arm: compare_verdicts(before, verdicts, table_names=(baseline_name, arm), **selection)
        for arm, verdicts in after.items()
    }
    if not comparisons:
        raise UndersongError(f"There is no verdict table to compare {baseline_name} with; name at least one more file.")
    metrics = {arm: comparison.metric for arm, comparison in comparisons.items()}
    first_arm = next(iter(metrics))
    if mismatched_arm := next((arm for arm, metric in metrics.items() if metric != metrics[first_arm]), None):
        raise UndersongError(
            f"{first_arm} and {mismatched_arm} are not both on harmful or both on benign prompts; "
            "compare them separately."
        )
    adjusted = holm([comparison.paired.clustered_p for comparison in comparisons.values()])
    return tuple(
        BaselineComparison(arm, comparison, p)
        for (arm, comparison), p in zip(comparisons.items(), adjusted)
        if p is not None
    )


def with_file_notes(
    arm: BaselineComparison,
    files: tuple[Path, Path],
    verdicts: tuple[Sequence[Verdict], Sequence[Verdict]],
    **selection: Any,
) -> BaselineComparison:
    """Add to a comparison of two verdict files what the files tell of how their replies were generated.

    Args:
        arm: The comparison.
        files: Verdict files before and after, or their folders.
        verdicts: Their verdicts.
        **selection: Which verdicts are compared, as for `select_verdicts`.

    Raises:
        UndersongError: The replies were cut at different limits of new tokens.
    """
    before, after = (select_verdicts(side, **selection) for side in verdicts)
    notes = [token_limit_note(files, (before, after)), *setting_notes(files, (before, after))]
    sentences = [capitalize_first(note) for note in notes if note]
    if (same_content := same_content_note(*files)) is not None:
        sentences.append(same_content)
    return replace(arm, comparison=replace(arm.comparison, notes=(*arm.comparison.notes, *sentences)))


def multi_model_json(arms: Sequence[BaselineComparison]) -> dict[str, Any]:
    """Output of `undersong compare --json` for several files: `arms`, each as for one file, with `name` and
    `p_adjusted`."""
    return {
        "scope": SCOPE,
        "metric": arms[0].comparison.metric,
        "correction": f"Holm over {len(arms)} arms, on the clustered p",
        "arms": [{"name": arm.name, **comparison_json(arm.comparison), "p_adjusted": arm.p_adjusted} for arm in arms],
    }


TABLE_HEADER = (
    "model", "rate", "95 % (clustered)", "difference, points", "95 % of difference (clustered)", "p", "p, Holm",
    "errors, unparsed, empty", "possible rate, lowest to highest",
)  # fmt: skip


def comparison_table_rows(arms: Sequence[BaselineComparison], baseline_name: str) -> list[tuple[str, ...]]:
    """Cells of the table under `TABLE_HEADER`, the baseline first."""
    baseline = arms[0].comparison
    empty_cells = ("",) * 4
    table: list[tuple[str, ...]] = [
        (baseline_name, *_rate_cells(baseline.paired.before), *empty_cells, *lost_reply_cells(baseline.before))
    ]
    for arm in arms:
        paired, summary = arm.comparison.paired, arm.comparison.after
        interval = f"{100 * paired.clustered_low:+.1f} to {100 * paired.clustered_high:+.1f}"
        difference_cells = (
            f"{100 * paired.difference:+.1f}",
            interval,
            f"{paired.clustered_p:.3g}",
            f"{arm.p_adjusted:.3g}",
        )
        table.append((arm.name, *_rate_cells(paired.after), *difference_cells, *lost_reply_cells(summary)))
    return table


def comparison_markdown(arms: Sequence[BaselineComparison], baseline_name: str) -> str:
    """Comparison as a Markdown table, with caveats below it."""
    lines = [
        "| " + " | ".join(cells) + " |"
        for cells in (TABLE_HEADER, *map(_escape_cells, comparison_table_rows(arms, baseline_name)))
    ]
    lines.insert(1, "|" + " --- |" * len(TABLE_HEADER))
    return "\n".join([*lines, "", *comparison_summary_lines(arms)])


def comparison_summary_lines(arms: Sequence[BaselineComparison]) -> list[str]:
    """Scope of the table, and its caveats."""
    baseline = arms[0].comparison
    metric_label = RATE_LABELS[baseline.metric]
    sentence_start = metric_label[0].upper() + metric_label[1:]
    notes = [
        f"{arm.name}: {note}"
        for arm in arms
        for note in (lost_replies_sentence(arm.comparison), *arm.comparison.notes)
        if note
    ]
    return [
        f"{sentence_start} over {baseline.paired.n} prompts in {baseline.paired.clusters} clusters, {len(arms)} "
        f"arm{'s' if len(arms) > 1 else ''} corrected together. This describes these models; it does not show what "
        "caused their differences.",
        *notes,
    ]


def _rate_cells(rate: Rate) -> tuple[str, str]:
    return f"{rate.rate:.1%}", f"{rate.low:.1%} to {rate.high:.1%}"


def lost_reply_cells(summary: VerdictSummary) -> tuple[str, str]:
    """Number of replies without a verdict, and the bounds of the rate given them."""
    bounds_text = f"{summary.bounds.low:.1%} to {summary.bounds.high:.1%}" if summary.bounds.lost else ""
    return f"{summary.error}, {summary.unparsed}, {summary.empty}", bounds_text


def _escape_cells(cells: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.replace("|", "\\|") for cell in cells)
