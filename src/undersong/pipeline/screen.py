"""Screening alone, on files: which items of a pool lie close to a harm set, and which are kept.

Both sides are manifests, or both are ready embeddings.  Everything is computed before anything is written, and the
output folder appears whole or not at all.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.loading import PLAIN, Loading
from undersong.pipeline.embedded import Means
from undersong.pipeline.engine import AT_ONCE, Engine, check_engine
from undersong.pipeline.padding import padding_checks
from undersong.pipeline.screening import screening_report
from undersong.pipeline.sides import READY, Side, read_harmless, read_sides, refuse_lost_harmless
from undersong.store import Store
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection
    from undersong.proximity.keep import Keep

FORMS = {"manifest": "kept.jsonl", "messages": "kept.messages.jsonl", "hub": "kept"}  # -> name of what is kept
OUTPUTS = (
    "proximity.parquet",
    "quarantine.parquet",
    "selection.json",
    "screening.json",
    "kept.parquet",
    *FORMS.values(),
    "kept-audio",
)


@dataclass(frozen=True, slots=True)
class Screened:
    """What a screening found: a proximity table an axis (by name, in order), and the selection on axis `by`."""

    tables: dict[str, pa.Table]
    by: str
    selection: Selection
    pool: Side
    harm: Side
    quarantined: tuple[Quarantined, ...]  # pool items left out of every axis
    report: Mapping[str, Any]  # `screening.json`


def screen(
    pool: str | Path,
    harm: str | Path,
    out: str | Path,
    *,
    axes: Mapping[str, str] | None = None,
    by: str | None = None,
    score: str = "nearest",
    centre: bool = False,
    keep: str = "closest:0.25",
    seed: int = 0,
    max_quarantined: float = 0.01,
    form: str = "manifest",
    columns: Mapping[str, str] | None = None,
    harm_columns: Mapping[str, str] | None = None,
    harmless: str | Path | None = None,
    model: str | None = None,
    loading: Loading = PLAIN,
    store: str | Path | None = None,
    check_padding: bool = False,
    engine: Engine = AT_ONCE,
) -> Screened | None:
    """Score `pool` against `harm` on every axis (name -> encoder), select on axis `by`, write the folder `out`.

    An item that fails on one axis is left out of all, so that every axis ranks the same pool.  Default axes: semantic
    (tfidf) where there is text, acoustic (logmel) where there is audio, internal for ready embeddings; default `by`:
    the first.  `keep`: a rule of `proximity.keep`; `form`: one of FORMS, as what the kept set is written; `columns`
    and `harm_columns`: our field -> the manifest's column; `harmless`: harmless speech, for the screening score;
    `model`: whose the internal axes are; `store`: where vectors are kept, so that nothing is embedded twice;
    `check_padding`: what `pad=bucket` of a speech encoder does to the ranking, told in the report.
    `engine`: where the pool is embedded; with a shard of its own a job embeds that (beside `out`) and returns None.
    Raises UndersongError, having written nothing, for whatever cannot be screened.
    """
    from undersong.encoders.vectors import without
    from undersong.proximity import choose, facts_of, proximity_table, read_keep

    check_engine(engine)
    rule = read_keep(keep)
    out = _writable(Path(out))
    if form not in FORMS:
        raise UndersongError(f"A kept set is not written as {form!r}; take one of {', '.join(FORMS)}.")
    if axes is not None:
        _known_axis(by, axes)  # before anything is read
    if centre and harmless is not None:
        raise UndersongError("A screening score cannot be centred: each set has its own centre; leave one of them out.")
    sides = read_sides(str(pool), str(harm), axes, max_quarantined, columns, harm_columns)
    axes = axes or _default_axes(*sides)
    chosen = _known_axis(by, axes)
    calm = None if harmless is None else read_harmless(str(harmless), sides, axes, max_quarantined)
    _check_asked(rule, score, sides, axes, model, out, [str(ref) for ref in (pool, harm, harmless) if ref])
    means = Means(model, loading, None if store is None else Store(store), engine, out.with_name(f"{out.name}.shards"))
    if engine.shard is not None:
        for encoder in axes.values():
            means.shard(encoder, [side.samples for side in sides])
        return None
    padding = padding_checks(axes, sides[0].samples, sides[1].samples, loading.device) if check_padding else None
    everything = sides if calm is None else (*sides, calm)
    vectors = {axis: _embed(axis, encoder, everything, means) for axis, encoder in axes.items()}
    lost = _lost(sides[0], vectors)
    settings: dict[str, Any] = {"score": score, "centre": centre, "max_quarantined": max_quarantined}
    name = Path(harm).stem
    kept = {axis: without(made[0], lost) for axis, made in vectors.items()}
    tables = {axis: proximity_table(axis, name, kept[axis], made[1], **settings) for axis, made in vectors.items()}
    facts = facts_of(sides[0].samples) if sides[0].samples else None
    others = {axis: table for axis, table in tables.items() if axis != chosen}
    selection = choose(tables[chosen], rule, seed, facts=facts, others=others)
    beside = None
    if calm is not None:
        refuse_lost_harmless({axis: made[2] for axis, made in vectors.items()}, max_quarantined)
        beside = {axis: proximity_table(axis, name, made[2], made[1], **settings) for axis, made in vectors.items()}
    report = screening_report(tables, kept, axes, selection, sides, facts, beside, calm)
    if padding is not None:
        report["padding"] = padding
    screened = Screened(tables, chosen, selection, *sides, lost, report)
    _write(screened, out, form)
    return screened


def _check_asked(
    rule: Keep,
    score: str,
    sides: tuple[Side, Side],
    axes: Mapping[str, str],
    model: str | None,
    out: Path,
    inputs: Sequence[str],
) -> None:
    """What can be refused before hours of embedding: a rule, a score, a model, and an output that is an input."""
    from undersong.encoders import is_internal
    from undersong.proximity.ranking import count
    from undersong.proximity.table import parse_score

    items = [len(side.ready.ids) if side.ready is not None else len(side.samples) for side in sides]
    kind, k = parse_score(score, items[1])
    if kind == "knn" and k > items[1]:
        raise UndersongError(f"There are no k = {k} neighbours of a harm set of {items[1]}; take a smaller K.")
    if rule.kind in ("closest", "distant", "random"):
        count(rule.amount, items[0])
    own = [axis for axis, spec in axes.items() if spec != READY and is_internal(spec)]
    if own and model is None:
        raise UndersongError(f"Axis {own[0]} is what a model hears; name the model with --model.")
    if model is not None and not own:
        raise UndersongError(f"No axis is what {model} hears; add one, such as --axis ears=internal.")
    places = [*inputs, *(s.audio for side in sides for s in side.rows if isinstance(s.audio, str))]
    if inside := [place for place in places if out in (Path(place).resolve(), *Path(place).resolve().parents)]:
        raise UndersongError(f"{inside[0]} is read and lies in {out}, which would be replaced; name another --out.")


def parse_axes(specs: Sequence[str]) -> dict[str, str]:
    """`NAME=ENCODER` each -> name to encoder, in order."""
    axes: dict[str, str] = {}
    for spec in specs:
        name, _, encoder = spec.partition("=")
        if name in axes:
            raise UndersongError(f"Axis {name!r} is named twice; give every axis a name of its own.")
        if not name or not encoder:
            raise UndersongError(f"Axis {spec!r} is no NAME=ENCODER with a name of its own; write e.g. semantic=tfidf.")
        axes[name] = encoder
    return axes


def parse_columns(specs: Sequence[str]) -> dict[str, str]:
    """`FIELD=COLUMN` each -> field to column."""
    columns: dict[str, str] = {}
    for spec in specs:
        field, _, column = spec.partition("=")
        if not field or not column or field in columns:
            raise UndersongError(f"Column {spec!r} is no FIELD=COLUMN with a field of its own; write text=transcript.")
        columns[field] = column
    return columns


def _default_axes(pool: Side, harm: Side) -> dict[str, str]:
    """What both sides can be measured on.  An item that lacks what others have is for the quarantine rule to judge:
    dropping the axis for it would select by another one in silence."""
    if pool.ready is not None:
        return {"internal": READY}

    def has(field: str) -> bool:
        return all(any(getattr(sample, field) for sample in side.samples) for side in (pool, harm))

    axes = {axis: encoder for axis, encoder, field in _DEFAULTS if has(field)}
    if not axes:
        raise UndersongError(
            "The pool and the harm set have neither text nor audio in common; fill one column in both."
        )
    return axes


_DEFAULTS = (("semantic", "tfidf", "text"), ("acoustic", "logmel", "audio"))


def _known_axis(by: str | None, axes: Mapping[str, str]) -> str:
    if by is None:
        return next(iter(axes))
    if by not in axes:
        near = difflib.get_close_matches(by, list(axes), n=1, cutoff=0.0)[0]
        raise UndersongError(
            f"There is no axis {by!r} to select by; the nearest is {near!r} (axes: {', '.join(axes)})."
        )
    return by


def _embed(axis: str, encoder: str, sides: Sequence[Side], means: Means) -> list[Embeddings]:
    """Vectors of every side (pool, harm, harmless) by one encoder, fitted on pool and harm where it is fitted."""
    ready = [side.ready for side in sides if side.ready is not None]
    if ready:
        if len(ready) < len(sides):
            raise UndersongError(f"Axis {axis}: give harmless speech as embeddings too, where the others are.")
        if encoder != READY:
            raise UndersongError(f"Axis {axis}: ready embeddings cannot go through {encoder}; write {axis}={READY}.")
        return ready
    if encoder == READY:
        raise UndersongError(f"Axis {axis}={READY} needs Parquet files with a column `embedding`; these are manifests.")
    return [means.vectors(encoder, [side.samples for side in sides], which) for which in range(len(sides))]


def _lost(pool: Side, vectors: Mapping[str, Sequence[Embeddings]]) -> tuple[Quarantined, ...]:
    """Pool items that some step could not use, once each, with all reasons."""
    reasons: dict[str, list[str]] = {}
    for item in pool.quarantined:
        reasons.setdefault(item.id, []).append(item.reason)
    for axis, made in vectors.items():
        for item in made[0].quarantined:
            reasons.setdefault(item.id, []).append(f"{axis}: {item.reason}")
    return tuple(Quarantined(id, "; ".join(why)) for id, why in reasons.items())


def _writable(out: Path) -> Path:
    """The folder to write: new, empty, or an earlier screening's and nothing else."""
    out = out.resolve()
    if out.exists():
        names = {path.name for path in out.iterdir()} if out.is_dir() else {out.name}
        if not out.is_dir() or (names and not (names <= set(OUTPUTS) and "selection.json" in names)):
            raise UndersongError(f"{out} exists and is no earlier screening; name a new folder with --out.")
    return out


def _write(screened: Screened, out: Path, form: str) -> None:
    """All files into a folder beside `out`, which then takes its name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        _write_files(screened, draft, form, out)
        draft.chmod(0o755)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
            os.rename(out, old / "old")
            os.rename(draft, out)
            shutil.rmtree(old)
        else:
            os.rename(draft, out)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write_files(screened: Screened, folder: Path, form: str, out: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from undersong.corpora import write_kept
    from undersong.encoders.vectors import quarantine_table, vectors_table
    from undersong.proximity import to_json

    pq.write_table(pa.concat_tables(screened.tables.values()), folder / "proximity.parquet")
    pq.write_table(quarantine_table(screened.quarantined), folder / "quarantine.parquet")
    (folder / "selection.json").write_text(to_json(screened.selection), encoding="utf-8")
    text = json.dumps(screened.report, ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "screening.json").write_text(text + "\n", encoding="utf-8")
    kept = set(screened.selection.ids)
    if screened.pool.ready is not None:
        ready = screened.pool.ready
        rows = [row for row, id in enumerate(ready.ids) if id in kept]
        table = vectors_table([ready.ids[row] for row in rows], ready.vectors[rows], ready.frames[rows])
        pq.write_table(table, folder / "kept.parquet")
        return
    samples = [sample for sample in screened.pool.rows if sample.id in kept]
    in_memory = any(isinstance(sample.audio, bytes) for sample in samples)  # which JSONL cannot hold
    file = folder / ("kept.parquet" if in_memory and form == "manifest" else FORMS[form])
    write_kept(samples, file)
    if form == "messages":  # trainers read whole paths, and the folder has not its name yet
        text = file.read_text(encoding="utf-8")
        here, there = (json.dumps(str(place), ensure_ascii=False)[1:-1] for place in (folder, out))
        file.write_text(text.replace(f'"{here}/', f'"{there}/'), encoding="utf-8")
