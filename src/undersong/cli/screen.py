"""`undersong screen POOL --harm HARM`: rank benign samples by their distance to harmful ones and select a subset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.options import Address, Attention, Device, DeviceMap, Dtype, EngineName, Gpus, Quantize, WorkerCount
from undersong.types import MAX_SEED

if TYPE_CHECKING:
    from rich.table import Table

    from undersong.pipeline.screening import ScreeningResult
    from undersong.proximity import Selection

MAX_CLOSEST_ROWS = 5  # rows shown


def screen_command(
    pool: Annotated[
        str,
        typer.Argument(
            help="Benign items: a manifest (JSONL, CSV, Parquet, conversations), a folder of audio, hf:OWNER/NAME, "
            "preset:ID, or ready embeddings."
        ),
    ],
    harm: Annotated[
        list[str],
        typer.Option(
            "--harm",
            metavar="[NAME=]CORPUS",
            help="Reference harm set, of the same kinds; repeatable: every axis is measured to each.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables, the selection and what is kept.")],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ENCODER",
            help="Repeatable; ENCODER: tfidf | char-ngrams | logmel | text[:ID] | speech:ID[,layer=9,pool=mean+std,"
            "pad=bucket] | whisper:FOLDER | internal[:VIEW] (of --model) | embeddings | python:FILE.py:FUNCTION. "
            "Default: semantic=tfidf and acoustic=logmel, as far as there is text and audio.",
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Axis to select by; default: the first.")] = None,
    to: Annotated[str | None, typer.Option(help="Harm set to select by; default: the first.")] = None,
    score: Annotated[str, typer.Option(help="nearest | knn:K | centroid.")] = "nearest",
    center: Annotated[bool, typer.Option("--centre", help="Rank after subtracting the pool's mean.")] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Repeatable: each is kept in a file of its own, and random:0.25 again is another draw.  "
            "closest:0.25 | distant:200 | random:0.25 | band:0.25-0.5 | below:0.3 | above:0.7, and then "
            "+group<=3, +matched(speaker,seconds,answer), +within(AXIS).  Default: closest:0.25.",
        ),
    ] = None,
    match_selection: Annotated[
        Path | None,
        typer.Option("--like", help="A selection.json: +matched(...) takes its shares instead of the pool's."),
    ] = None,
    output_format: Annotated[
        str,
        typer.Option(
            "--form",
            help="What is kept, as manifest | messages (LLaMA-Factory, ms-swift) | sharegpt | kimi (Kimi-Audio) | hub "
            "(a data set folder).",
        ),
    ] = "manifest",
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where the pool calls a field otherwise; repeatable."),
    ] = None,
    harm_column: Annotated[
        list[str] | None,
        typer.Option("--harm-column", metavar="FIELD=COLUMN", help="Where the harm sets do; repeatable."),
    ] = None,
    baseline_column: Annotated[
        list[str] | None,
        typer.Option("--harmless-column", metavar="FIELD=COLUMN", help="Where the harmless set does; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of a random selection.")] = 0,
    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pool that may be unusable.")
    ] = 0.01,
    baseline: Annotated[
        str | None,
        typer.Option("--harmless", help="Harmless speech: is the pool closer to harm than that?  (screening score)"),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Folder that no manifest's audio may lead out of (manifests of other people)."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose internal axes are: organism:NAME, mini, a folder, or an id.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Keep vectors here: the same items are not embedded twice.")
    ] = None,
    check_padding: Annotated[
        bool, typer.Option("--check-padding", help="Compare pad=exact with pad=bucket on up to 200 of your clips.")
    ] = False,
    engine: EngineName = "local",
    address: Address = None,
    workers: WorkerCount = None,
    gpus: Gpus = 0.0,
    shard: Annotated[
        str | None,
        typer.Option("--shard", metavar="I/N", help="Embed this job's shards only; run without it at the end."),
    ] = None,
    device: Device = "cpu",
    dtype: Dtype = "float32",
    device_map: DeviceMap = None,
    attention: Attention = None,
    quantize: Quantize = None,
) -> None:
    """Rank a pool by its distance to harmful content, and keep a part of it."""
    from undersong.models.load_options import LoadOptions
    from undersong.pipeline.screening import (
        DEFAULT_OPTIONS,
        ScreeningOptions,
        parse_axes,
        parse_columns,
        parse_harm_sets,
    )
    from undersong.pipeline.screening import run_screening as run
    from undersong.stages.engine import Engine

    screening_options = ScreeningOptions(
        axes=parse_axes(axis) if axis else None,
        select_axis=by,
        to=to,
        score=score,
        centre=center,
        keep=keep[0] if keep else DEFAULT_OPTIONS.keep,
        also=(keep or [])[1:],
        like=match_selection,
        seed=seed,
        max_quarantined=max_quarantined,
        form=output_format,
        columns=parse_columns(column or ()),
        harm_columns=parse_columns(harm_column or ()),
        harmless=baseline,
        harmless_columns=parse_columns(baseline_column or ()),
        root=root,
        model=model,
        loading=LoadOptions(device, dtype, device_map, attention, quantize),
        store=store,
        check_padding=check_padding,
        engine=Engine(engine, shard, address, workers, gpus),
        say=lambda line: typer.echo(line, err=True),
    )
    result = run(pool, parse_harm_sets(harm), out, screening_options)
    if result is None:
        typer.echo(f"Shards {shard} are done; when all jobs are, run the same command without --shard.")
        return
    _print_screening(result, out)


def _print_screening(result: ScreeningResult, out: Path) -> None:
    from rich.console import Console

    selection, console = result.selection, Console()
    console.print(_distance_table(result))
    console.print(_closest_table(result))
    n = next(row["n"] for row in result.report["distances"] if row["axis"] == selection.axis)
    criterion = f"by {selection.axis}" + (f" to {selection.harm_set}" if selection.harm_set else "")
    lines = [*selection.notes, *_finding_lines(result.report)]
    for extra_selection in result.extra_selections:
        shared_count = len(set(extra_selection.ids) & set(selection.ids))
        lines += [
            *extra_selection.notes,
            f"Kept too: the {_selection_label(extra_selection)} of {n} {criterion}, {shared_count} of them among the first.",
        ]
    lines.append(
        f"Kept the {_selection_label(selection)} of {n} {criterion}, ids hash {selection.ids_hash[:12]}; written to {out}."
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _selection_label(selection: Selection) -> str:
    return f"{selection.rule or selection.kind} {selection.k}"


def _distance_table(result: ScreeningResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    rows = result.report["distances"]
    sets = {row["harm_set"]: None for row in rows}
    harm_set_name = escape(next(iter(sets))) if len(sets) == 1 else "harm"
    title = f"Cosine distance to {harm_set_name} ({rows[0]['score']}{', centred' if rows[0]['centred'] else ''})"
    table = Table(title=title, pad_edge=False, collapse_padding=True)  # nine columns in a terminal of eighty
    for name in ("axis", "to")[: min(2, len(sets))]:
        table.add_column(name, overflow="fold", min_width=8)
    for name in ("ranked", "left out", "min", "25 %", "median", "75 %", "max"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        quartiles = (f"{row[name]:.3g}" for name in ("min", "q25", "median", "q75", "max"))
        names = (escape(row["axis"]), escape(row["harm_set"]))[: len(table.columns) - 7]
        table.add_row(*names, str(row["n"]), str(len(result.quarantined)), *quartiles)
    return table


def _closest_table(result: ScreeningResult) -> Table:
    from rich.markup import escape
    from rich.table import Table

    harm_set = result.selection.harm_set or result.report["closest"][0]["harm_set"]
    table = Table("rank", title=f"Closest on axis {escape(result.select_axis)}")
    for name in ("item", "distance", "nearest harmful item"):
        table.add_column(name, overflow="fold", no_wrap=name == "distance")
    for row in result.report["closest"]:
        if (row["axis"], row["harm_set"]) == (result.select_axis, harm_set) and row["rank"] <= MAX_CLOSEST_ROWS:
            labeled_texts = ((row["id"], row["text"]), (row["nearest_id"], row["nearest_text"]))
            item, neighbor = (escape(f"{item_id}: {text}" if text else str(item_id)) for item_id, text in labeled_texts)
            table.add_row(str(row["rank"]), item, f"{row['score']:.4g}", neighbor)
    return table


def _finding_lines(report: Mapping[str, Any]) -> list[str]:
    """The findings of `screening.json` in words."""
    lines = [report["ties"]] if "ties" in report else []
    for entry in report.get("fingerprint", []):
        dominant_axis = entry["hears"].get("spearman")
        finding = (
            f"goes along most with axis {dominant_axis}"
            if dominant_axis
            else "goes along with no axis more than with another"
        )
        lines.append(f"Fingerprint: on this pool the axis {entry['internal']} {finding} (rank correlation).")
    multiple_harm_sets = len({entry["harm_set"] for entry in report["distances"]}) > 1
    for entry in report.get("screening_score", []):
        value = entry["value"]
        interval = "" if value["low"] is None else f" [{value['low']:+.3f}, {value['high']:+.3f}]"
        axis_label = f"axis {entry['axis']}" + (f" to {entry['harm_set']}" if multiple_harm_sets else "")
        lines.append(f"Screening score on {axis_label}: {value['value']:+.3f}{interval}; no forecast of a JSR.")
    for axis, entry in report.get("padding", {}).items():
        lines.append(
            f"Padding on axis {axis}: exact and bucket rank {entry['clips']} clips with Spearman {entry['spearman']:.2f} "
            f"and share {entry['overlap']:.0%} of the closest quarter ({entry['chance']:.0%} by chance)."
        )
    if near_duplicates := report.get("near_duplicates", {}).get("kinds"):
        kinds = ", ".join(f"{pairs} {kind}" for kind, pairs in near_duplicates.items())
        lines.append(f"Pairs of pool and harm set that are nearly the same: {kinds}; see screening.json.")
    return lines
