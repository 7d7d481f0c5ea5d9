"""`undersong screen POOL`: rank benign samples by their distance to harmful ones and select a subset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.progress import ProgressDisplay
from undersong.cli.terminal import cell, echo, print_table
from undersong.screening.pool.options import SHIPPED_HARM, ScreeningRequest

if TYPE_CHECKING:
    from rich.table import Table

    from undersong.proximity.selection import Selection
    from undersong.screening.pool.output import ScreeningResult

RehearsalPlan = Annotated[
    bool, typer.Option("--plan", help="Say what --rehearse would cost, and stop before any model is loaded.")
]
MAX_CLOSEST_ROWS = 5  # rows shown


def screen_command(
    request: ScreeningRequest,
    *,
    plan: RehearsalPlan = False,
) -> None:
    """Rank benign samples by distance to harm.

    The distance is to the harmful samples of --harm, or to those that ship, in words, sound or a model's own
    representation. --keep keeps a part of the samples.
    """
    from undersong.screening.pool.run import run_screening

    assert request.out is not None  # the command line needs it
    if plan:
        from undersong.screening.pool.rehearsal_plan import plan_screening

        with ProgressDisplay() as say:
            cost = plan_screening(request.pool, request.harm, request.out, replace(request, progress=say))
        for line in cost.lines:
            echo(line)
        return
    with ProgressDisplay() as say:
        result = run_screening(request.pool, request.harm, request.out, replace(request, progress=say))
    if result is None:
        echo(f"Shards {request.engine.shard} are done; when all jobs are, run the same command without --shard.")
        return
    if request.harm == SHIPPED_HARM:  # not named: what --harm names is a mapping
        echo(f"--harm names no harm set, so distances are to the harmful requests that ship ({SHIPPED_HARM}).")
    _print_screening(result, Path(request.out))


def _print_screening(result: ScreeningResult, out: Path) -> None:
    from undersong.screening.pool.output import RANKED

    print_table(_distance_table(result), _closest_table(result))
    if "rehearsal" in result.report:
        print_table(_rehearsal_table(result.report["rehearsal"]))
    selected_by = result.report["selected_by"]
    n = next(row["n"] for row in result.report["distances"] if row["axis"] == selected_by["axis"])
    several = len({row["harm_set"] for row in result.report["distances"]}) > 1
    criterion = f"by {selected_by['axis']}" + (f" to {selected_by['harm_set']}" if several else "")
    lines = [*(result.selection.notes if result.selection else ()), *_finding_lines(result.report)]
    for extra_selection in result.extra_selections:
        assert result.selection is not None, "an extra one follows it"
        shared_count = len(set(extra_selection.ids) & set(result.selection.ids))
        lines += [
            *extra_selection.notes,
            f"Kept too: the {_selection_label(extra_selection)} of {n} {criterion}, {shared_count} of them among the "
            "first.",
        ]
    if result.selection is None:
        lines.append(f"Ranked {n} {criterion}; the list is {out / RANKED}. Without --keep, no samples are kept.")
    else:
        lines.append(
            f"Kept the {_selection_label(result.selection)} of {n} {criterion}, ids hash "
            f"{result.selection.ids_hash[:12]}; written to {out}."
        )
    for line in (*lines, *result.written_views):
        echo(line)


def _selection_label(selection: Selection) -> str:
    return f"{selection.rule or selection.kind} {selection.k}"


def _distance_table(result: ScreeningResult) -> Table:
    from rich.table import Table

    rows = result.report["distances"]
    sets = {row["harm_set"]: None for row in rows}
    harm_set_name = cell(next(iter(sets))) if len(sets) == 1 else "harm"
    title = f"Cosine distance to {harm_set_name} ({rows[0]['score']}{', centered' if rows[0]['centered'] else ''})"
    table = Table(title=title, pad_edge=False, collapse_padding=True)  # nine columns in a terminal of eighty
    for name in ("axis", "to")[: min(2, len(sets))]:
        table.add_column(name, overflow="fold", min_width=8)
    for name in ("ranked", "left out", "min", "25 %", "median", "75 %", "max"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        quartiles = (f"{row[name]:.3g}" for name in ("min", "q25", "median", "q75", "max"))
        names = (cell(row["axis"]), cell(row["harm_set"]))[: len(table.columns) - 7]
        table.add_row(*names, str(row["n"]), str(len(result.quarantined)), *quartiles)
    return table


def _closest_table(result: ScreeningResult) -> Table:
    from rich.table import Table

    harm_set = result.report["selected_by"]["harm_set"]
    table = Table("rank", title=f"Closest on axis {cell(result.select_axis)}")
    for name in ("item", "distance", "nearest harmful item"):
        table.add_column(name, overflow="fold", no_wrap=name == "distance")
    for row in result.report["closest"]:
        if (row["axis"], row["harm_set"]) == (result.select_axis, harm_set) and row["rank"] <= MAX_CLOSEST_ROWS:
            labeled_texts = ((row["id"], row["text"]), (row["nearest_id"], row["nearest_text"]))
            item, neighbor = (
                cell(f"{item_id}: {text}" if text else str(item_id or "none is nearest"))
                for item_id, text in labeled_texts
            )
            table.add_row(str(row["rank"]), item, f"{row['score']:.4g}", neighbor)
    return table


def _rehearsal_table(record: Mapping[str, Any]) -> Table:
    """Table of the rehearsed sets, the most damaging first."""
    from rich.table import Table

    spread = "behaviors and seeds" if len(record["seeds"]) > 1 else "behaviors"
    table = Table(
        title=f"Loss of refusal margin on {cell(record['harm_set'])} by {record['steps']} steps, in nats, with 95 % "
        f"intervals over {spread}",
        pad_edge=False,
        collapse_padding=True,
    )
    table.add_column("set", overflow="fold", min_width=8)
    for name in ("items", "loss", "minus random", "comply, points"):
        table.add_column(name, justify="right", no_wrap=True)
    for entry in sorted(record["sets"], key=lambda entry: -entry["loss"]["value"]):
        difference = entry["loss_minus_random"]
        table.add_row(
            cell(entry["name"]),
            str(entry["n"]),
            _interval_text(entry["loss"]),
            "" if difference is None else _interval_text(difference),
            _interval_text(entry["compliance_change"], scale=100, digits=0),
        )
    return table


def _interval_text(value: Mapping[str, float | None], scale: float = 1.0, digits: int = 2) -> str:
    center, low, high = (
        None if (end := value[name]) is None else f"{scale * end:+.{digits}f}" for name in ("value", "low", "high")
    )
    return f"{center}" if low is None else f"{center} [{low}, {high}]"


def _rehearsal_lines(record: Mapping[str, Any]) -> list[str]:
    before = (
        f"Before the rehearsals, the model would rather comply with {record['compliance_before']:.0%} of "
        f"{record['n_prompts']} harmful prompts of {record['n_behaviors']} behaviors (margin below 0); the mean margin "
        f"is {record['margin_before']:.2f} nats."
    )
    return [before, *record["notes"]]


def _finding_lines(report: Mapping[str, Any]) -> list[str]:
    """The findings of `screening.json` in words."""
    from undersong.screening.pool.separation import separation_lines

    lines = separation_lines(report)
    lines += _rehearsal_lines(report["rehearsal"]) if "rehearsal" in report else []
    lines += [report["ties"]] if "ties" in report else []
    if dropped := report.get("dropped"):
        lines.append(f"{dropped:,} items of the list of --drop are left out.")
    for entry in report.get("axis_fingerprints", []):
        dominant_axis = entry["hears"].get("spearman")
        finding = (
            f"goes along most with axis {dominant_axis}"
            if dominant_axis
            else "goes along with no axis more than with another"
        )
        lines.append(f"Fingerprint: on this pool the axis {entry['internal']} {finding} (rank correlation).")
    multiple_harm_sets = len({entry["harm_set"] for entry in report["distances"]}) > 1
    for entry in report.get("screening_scores", []):
        value = entry["value"]
        interval = "" if value["low"] is None else f" [{value['low']:+.3f}, {value['high']:+.3f}]"
        axis_label = f"axis {entry['axis']}" + (f" to {entry['harm_set']}" if multiple_harm_sets else "")
        lines.append(f"Screening score on {axis_label}: {value['value']:+.3f}{interval}; no forecast of a JSR.")
    for axis, entry in report.get("padding", {}).items():
        lines.append(
            f"Padding on axis {axis}: exact and bucket rank {entry['clips']} clips with Spearman "
            f"{entry['spearman']:.2f} "
            f"and share {entry['overlap']:.0%} of the closest quarter ({entry['chance']:.0%} by chance)."
        )
    if near_duplicates := report.get("near_duplicates", {}).get("kinds"):
        kinds = ", ".join(f"{pairs} {kind}" for kind, pairs in near_duplicates.items())
        lines.append(f"Pairs of pool and harm set that are nearly the same: {kinds}; see screening.json.")
    return lines
