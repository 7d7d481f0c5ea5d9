"""`undersong screen POOL --harm HARM`: which benign items lie close to harmful ones, and which to keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize

if TYPE_CHECKING:
    from rich.table import Table

    from undersong.pipeline.screen import Screened

CLOSEST = 5  # rows shown


def screen(
    pool: Annotated[
        str,
        typer.Argument(
            help="Benign items: a manifest (JSONL, CSV, Parquet, conversations), a folder of audio, hf:OWNER/NAME, "
            "preset:ID, or ready embeddings."
        ),
    ],
    harm: Annotated[str, typer.Option("--harm", help="Reference harm set, of the same kinds.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the tables, the selection and what is kept.")],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=ENCODER",
            help="Repeatable; ENCODER: tfidf | char-ngrams | logmel | text[:ID] | speech:ID[,layer=9,pool=mean+std,"
            "pad=bucket] | whisper:FOLDER | internal[:VIEW] (of --model) | embeddings. "
            "Default: semantic=tfidf and acoustic=logmel, as far as there is text and audio.",
        ),
    ] = None,
    by: Annotated[str | None, typer.Option(help="Axis to select by; default: the first.")] = None,
    score: Annotated[str, typer.Option(help="nearest | knn:K | centroid.")] = "nearest",
    centre: Annotated[bool, typer.Option("--centre", help="Rank after subtracting the pool's mean.")] = False,
    keep: Annotated[
        str,
        typer.Option(
            metavar="RULE",
            help="closest:0.25 | distant:200 | random:0.25 | band:0.25-0.5 | below:0.3 | above:0.7, and then "
            "+group<=3, +matched(speaker,seconds,answer), +within(AXIS).",
        ),
    ] = "closest:0.25",
    form: Annotated[
        str,
        typer.Option(
            "--form",
            help="What is kept, as manifest | messages (LLaMA-Factory, ms-swift) | hub (a data set folder).",
        ),
    ] = "manifest",
    column: Annotated[
        list[str] | None,
        typer.Option("--column", metavar="FIELD=COLUMN", help="Where the pool calls a field otherwise; repeatable."),
    ] = None,
    harm_column: Annotated[
        list[str] | None,
        typer.Option("--harm-column", metavar="FIELD=COLUMN", help="Where the harm set does; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of a random selection.")] = 0,
    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pool that may be unusable.")
    ] = 0.01,
    harmless: Annotated[
        str | None,
        typer.Option("--harmless", help="Harmless speech: is the pool closer to harm than that?  (screening score)"),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Whose internal axes are: organism:NAME, a folder, or an id.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option("--store", help="Keep vectors here: the same items are not embedded twice.")
    ] = None,
    check_padding: Annotated[
        bool, typer.Option("--check-padding", help="Compare pad=exact with pad=bucket on up to 200 of your clips.")
    ] = False,
    engine: Annotated[str, typer.Option("--engine", help="local | ray (extra `scale`).")] = "local",
    address: Annotated[
        str | None, typer.Option("--address", help="A Ray cluster, HOST:PORT or auto; default: this machine.")
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Of Ray; default: as many as fit.")] = None,
    gpus: Annotated[float, typer.Option("--gpus", min=0, help="GPUs a Ray worker.")] = 0.0,
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
    from undersong.models.loading import Loading
    from undersong.pipeline.engine import Engine
    from undersong.pipeline.screen import parse_axes, parse_columns
    from undersong.pipeline.screen import screen as run

    screened = run(
        pool,
        harm,
        out,
        axes=parse_axes(axis) if axis else None,
        by=by,
        score=score,
        centre=centre,
        keep=keep,
        seed=seed,
        form=form,
        columns=parse_columns(column) if column else None,
        harm_columns=parse_columns(harm_column) if harm_column else None,
        max_quarantined=max_quarantined,
        harmless=harmless,
        model=model,
        store=store,
        check_padding=check_padding,
        engine=Engine(engine, shard, address, workers, gpus),
        loading=Loading(device, dtype, device_map, attention, quantize),
    )
    if screened is None:
        typer.echo(f"Shards {shard} are done; when all jobs are, run the same command without --shard.")
        return
    _print(screened, out)


def _print(screened: Screened, out: Path) -> None:
    from rich.console import Console

    chosen, console = screened.selection, Console()
    for table in (_distances(screened), _closest(screened)):
        console.print(table)
    kept = f"{chosen.rule or chosen.kind} {chosen.k} of {len(screened.tables[screened.by])} by {chosen.axis}"
    for note in (*chosen.notes, *_said(screened.report)):
        console.print(note, markup=False, soft_wrap=True)
    console.print(f"Kept the {kept}, ids hash {chosen.ids_hash[:12]}; written to {out}.", markup=False, soft_wrap=True)


def _distances(screened: Screened) -> Table:
    import numpy as np
    from rich.table import Table

    from undersong.proximity import how, scores

    facts = how(screened.tables[screened.by])
    title = f"Cosine distance to the harm set ({facts['score']}{', centred' if facts['centred'] else ''})"
    table = Table("axis", "ranked", "left out", "min", "25 %", "median", "75 %", "max", title=title)
    for axis, proximity in screened.tables.items():
        quartiles = np.quantile(scores(proximity).astype(float), [0, 0.25, 0.5, 0.75, 1])
        table.add_row(axis, str(len(proximity)), str(len(screened.quarantined)), *(f"{q:.4g}" for q in quartiles))
    return table


def _closest(screened: Screened) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from undersong.proximity import scores

    proximity, texts, harm = screened.tables[screened.by], screened.pool.texts(), screened.harm.texts()
    table = Table("rank", "item", "distance", "nearest harmful item", title=f"Closest on axis {escape(screened.by)}")
    rows = zip(proximity.to_pylist(), scores(proximity).tolist())
    for row, distance in sorted(rows, key=lambda pair: pair[0]["rank"])[:CLOSEST]:
        item, other = (
            escape(f"{id}: {said[id]}" if id in said else str(id))
            for id, said in ((row["id"], texts), (row["nearest_id"], harm))
        )
        table.add_row(str(row["rank"]), item, f"{distance:.4g}", other)
    return table


def _said(report: Mapping[str, Any]) -> list[str]:
    """The findings of `screening.json` in words."""
    lines = [report["ties"]] if "ties" in report else []
    for one in report.get("fingerprint", []):
        heard = one["hears"].get("spearman")
        said = f"goes along most with axis {heard}" if heard else "goes along with no axis more than with another"
        lines.append(f"Fingerprint: on this pool the axis {one['internal']} {said} (rank correlation).")
    for one in report.get("screening_score", []):
        value = one["value"]
        interval = "" if value["low"] is None else f" [{value['low']:+.3f}, {value['high']:+.3f}]"
        lines.append(f"Screening score on axis {one['axis']}: {value['value']:+.3f}{interval}; no forecast of a JSR.")
    for axis, one in report.get("padding", {}).items():
        lines.append(
            f"Padding on axis {axis}: exact and bucket rank {one['clips']} clips with Spearman {one['spearman']:.2f} "
            f"and share {one['overlap']:.0%} of the closest quarter ({one['chance']:.0%} by chance)."
        )
    if near := report.get("near_duplicates", {}).get("pairs"):
        lines.append(f"{near} pairs of pool and harm set have nearly the same text; see screening.json.")
    return lines
