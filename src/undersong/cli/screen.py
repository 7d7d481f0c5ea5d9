"""`undersong screen POOL --harm HARM`: which benign items lie close to harmful ones, and which to keep."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from undersong.cli.engine import Address, EngineName, Gpus, WorkerCount
from undersong.cli.loading import Attention, Device, DeviceMap, Dtype, Quantize
from undersong.types import LARGEST_SEED

if TYPE_CHECKING:
    from rich.table import Table

    from undersong.pipeline.screening import Screened
    from undersong.proximity import Selection

CLOSEST = 5  # rows shown


def screen(
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
    centre: Annotated[bool, typer.Option("--centre", help="Rank after subtracting the pool's mean.")] = False,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Repeatable: each is kept in a file of its own, and random:0.25 again is another draw.  "
            "closest:0.25 | distant:200 | random:0.25 | band:0.25-0.5 | below:0.3 | above:0.7, and then "
            "+group<=3, +matched(speaker,seconds,answer), +within(AXIS).  Default: closest:0.25.",
        ),
    ] = None,
    like: Annotated[
        Path | None,
        typer.Option("--like", help="A selection.json: +matched(...) takes its shares instead of the pool's."),
    ] = None,
    form: Annotated[
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
    harmless_column: Annotated[
        list[str] | None,
        typer.Option("--harmless-column", metavar="FIELD=COLUMN", help="Where the harmless set does; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Of a random selection.")] = 0,
    max_quarantined: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the pool that may be unusable.")
    ] = 0.01,
    harmless: Annotated[
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
    from undersong.models.loading import Loading
    from undersong.pipeline.engine import Engine
    from undersong.pipeline.screening import PLAIN, Asked, parse_axes, parse_columns, parse_harm
    from undersong.pipeline.screening import screen as run

    asked = Asked(
        axes=parse_axes(axis) if axis else None,
        by=by,
        to=to,
        score=score,
        centre=centre,
        keep=keep[0] if keep else PLAIN.keep,
        also=(keep or [])[1:],
        like=like,
        seed=seed,
        max_quarantined=max_quarantined,
        form=form,
        columns=parse_columns(column or ()),
        harm_columns=parse_columns(harm_column or ()),
        harmless=harmless,
        harmless_columns=parse_columns(harmless_column or ()),
        root=root,
        model=model,
        loading=Loading(device, dtype, device_map, attention, quantize),
        store=store,
        check_padding=check_padding,
        engine=Engine(engine, shard, address, workers, gpus),
        say=lambda line: typer.echo(line, err=True),
    )
    screened = run(pool, parse_harm(harm), out, asked)
    if screened is None:
        typer.echo(f"Shards {shard} are done; when all jobs are, run the same command without --shard.")
        return
    _print(screened, out)


def _print(screened: Screened, out: Path) -> None:
    from rich.console import Console

    chosen, console = screened.selection, Console()
    console.print(_distances(screened))
    console.print(_closest(screened))
    n = next(one["n"] for one in screened.report["distances"] if one["axis"] == chosen.axis)
    by = f"by {chosen.axis}" + (f" to {chosen.harm_set}" if chosen.harm_set else "")
    lines = [*chosen.notes, *_said(screened.report)]
    for one in screened.also:
        shared = len(set(one.ids) & set(chosen.ids))
        lines += [*one.notes, f"Kept too: the {_kept(one)} of {n} {by}, {shared} of them among the first."]
    lines.append(f"Kept the {_kept(chosen)} of {n} {by}, ids hash {chosen.ids_hash[:12]}; written to {out}.")
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _kept(one: Selection) -> str:
    return f"{one.rule or one.kind} {one.k}"


def _distances(screened: Screened) -> Table:
    from rich.markup import escape
    from rich.table import Table

    rows = screened.report["distances"]
    sets = {row["harm_set"]: None for row in rows}
    to = escape(next(iter(sets))) if len(sets) == 1 else "harm"
    title = f"Cosine distance to {to} ({rows[0]['score']}{', centred' if rows[0]['centred'] else ''})"
    table = Table(title=title, pad_edge=False, collapse_padding=True)  # nine columns in a terminal of eighty
    for name in ("axis", "to")[: min(2, len(sets))]:
        table.add_column(name, overflow="fold", min_width=8)
    for name in ("ranked", "left out", "min", "25 %", "median", "75 %", "max"):
        table.add_column(name, no_wrap=True, justify="right")
    for row in rows:
        quartiles = (f"{row[name]:.3g}" for name in ("min", "q25", "median", "q75", "max"))
        names = (escape(row["axis"]), escape(row["harm_set"]))[: len(table.columns) - 7]
        table.add_row(*names, str(row["n"]), str(len(screened.quarantined)), *quartiles)
    return table


def _closest(screened: Screened) -> Table:
    from rich.markup import escape
    from rich.table import Table

    to = screened.selection.harm_set or screened.report["closest"][0]["harm_set"]
    table = Table("rank", title=f"Closest on axis {escape(screened.by)}")
    for name in ("item", "distance", "nearest harmful item"):
        table.add_column(name, overflow="fold", no_wrap=name == "distance")
    for row in screened.report["closest"]:
        if (row["axis"], row["harm_set"]) == (screened.by, to) and row["rank"] <= CLOSEST:
            pairs = ((row["id"], row["text"]), (row["nearest_id"], row["nearest_text"]))
            item, other = (escape(f"{id}: {text}" if text else str(id)) for id, text in pairs)
            table.add_row(str(row["rank"]), item, f"{row['score']:.4g}", other)
    return table


def _said(report: Mapping[str, Any]) -> list[str]:
    """The findings of `screening.json` in words."""
    lines = [report["ties"]] if "ties" in report else []
    for one in report.get("fingerprint", []):
        heard = one["hears"].get("spearman")
        said = f"goes along most with axis {heard}" if heard else "goes along with no axis more than with another"
        lines.append(f"Fingerprint: on this pool the axis {one['internal']} {said} (rank correlation).")
    several = len({one["harm_set"] for one in report["distances"]}) > 1
    for one in report.get("screening_score", []):
        value = one["value"]
        interval = "" if value["low"] is None else f" [{value['low']:+.3f}, {value['high']:+.3f}]"
        where = f"axis {one['axis']}" + (f" to {one['harm_set']}" if several else "")
        lines.append(f"Screening score on {where}: {value['value']:+.3f}{interval}; no forecast of a JSR.")
    for axis, one in report.get("padding", {}).items():
        lines.append(
            f"Padding on axis {axis}: exact and bucket rank {one['clips']} clips with Spearman {one['spearman']:.2f} "
            f"and share {one['overlap']:.0%} of the closest quarter ({one['chance']:.0%} by chance)."
        )
    if near := report.get("near_duplicates", {}).get("kinds"):
        kinds = ", ".join(f"{pairs} {kind}" for kind, pairs in near.items())
        lines.append(f"Pairs of pool and harm set that are nearly the same: {kinds}; see screening.json.")
    return lines
