"""A screening from its corpora to its folder.  Everything is computed before anything is written to that.

Knows the order; each step has a room or a file of its own.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from undersong.pipeline.engine import AT_ONCE
from undersong.pipeline.screening.asked import READY, Asked, liked, named_harm, rules_asked
from undersong.pipeline.screening.findings import findings
from undersong.pipeline.screening.padding import padded, padding_checks
from undersong.pipeline.screening.refusals import check_asked, check_axes, check_material, check_pool, refuse_inside
from undersong.pipeline.screening.sides import Side, Sides, check_sides, read_sides, refuse_lost
from undersong.pipeline.screening.writing import Screened, publish, read_screened, writable, write_screened
from undersong.pipeline.stages.embedded import View, embed_shard, embeddings
from undersong.pipeline.workshop import Workshop
from undersong.store import Artefact, Draft, Inputs, Store, canonical
from undersong.types import Embeddings, Quarantined, UndersongError

VERSION = 3  # of what a screening finds
KEPT_BY = ("by", "keep", "also", "like", "seed", "check_padding")  # options on which only the selection depends
PLAIN = Asked()
DEFAULTS = (("semantic", "tfidf", "text"), ("acoustic", "logmel", "audio"))


def screen(
    pool: str | Path, harm: str | Path | Mapping[str, str | Path], out: str | Path, asked: Asked = PLAIN
) -> Screened | None:
    """Score `pool` against the harm sets on every axis, select on one of them, write the folder `out`.

    With `asked.store` all is kept there, the findings too, so that the same question again is a look-up; without, what
    is embedded lies in `OUT.*.partial` until the screening is written, so that a killed one goes on where it was.  With
    a shard of its own (`asked.engine`) a job embeds that into the store and returns None.
    Raises UndersongError, having written nothing to `out`, for whatever cannot be screened.
    """
    sets, out = named_harm(harm), writable(Path(out))
    rules = rules_asked(asked)
    check_asked(asked, sets, out)
    liked(asked)
    with _workshop(asked, out, [str(pool), sets]) as (shop, store):
        sides = read_sides(shop, str(pool), sets, asked)
        refuse_inside(sides, out)
        if asked.engine.shard is not None:
            for views in _ready(sides, asked).values():
                embed_shard(shop, views[0], store)
            return None

        def make(draft: Draft) -> None:
            axes, names = _ready(sides, asked), _axes(sides, asked)
            more = {"padding": padding_checks(names, sides, asked.loading.device)} if asked.check_padding else {}
            vectors = {axis: _vectors(shop, sides, views) for axis, views in axes.items()}
            lost = _lost(sides.pool, vectors)
            _refuse_lost(sides.pool, vectors, lost, asked.max_quarantined)
            if sides.calm is not None:
                for axis, made in vectors.items():
                    how = f"cannot be used on axis {axis}"
                    refuse_lost(how, sides.calm, made[-1].quarantined, asked.max_quarantined)
            found = findings(sides, names, vectors, lost, rules, asked, partial(_once, store, config, inputs))
            write_screened(found, more, sides.pool, lost, draft.path)

        config, inputs = _question(sets, sides, asked)
        kept = store.get_or_make("screening", VERSION, config, inputs, make, seed=asked.seed)
        screened = read_screened(kept.checked().path)
        publish(kept.path, out, asked.form)
    return screened


@contextmanager
def _workshop(asked: Asked, out: Path, corpora: list[Any]) -> Iterator[tuple[Workshop, Store]]:
    """The user's store, or one beside `out` that goes when the screening is there, or has failed before its second
    shard: of anything longer what is embedded stays for the next run."""
    if asked.store is not None:
        store = Store(asked.store)
        yield Workshop(store, asked.loading, asked.say), store
        return
    # By what is embedded: two questions with one OUT at once must not clear away each other's work.
    embedded = [*corpora, asked.axes, asked.model, asked.columns, asked.harm_columns, asked.harmless_columns]
    named = canonical([*embedded, str(asked.harmless), asked.loading.key])
    root = out.with_name(f"{out.name}.{hashlib.sha256(named.encode()).hexdigest()[:8]}.partial")
    new = [folder for folder in root.parents if not folder.exists()]
    done = False
    try:
        yield Workshop(Store(root), asked.loading, asked.say), Store(root)
        done = True
    finally:
        shards = "embeddings/*/embeddings-00001.parquet", "embeddings/*.shards.*", "*/*.portions/rows-*"
        long = map(root.glob, shards)
        if done or not any(map(any, long)):
            shutil.rmtree(root, ignore_errors=True)
            for folder in new if not done else ():
                if folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()


def _once(
    store: Store, config: dict[str, Any], inputs: Inputs, compute: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """What `compute` gives, from the store where this was asked before with another rule."""

    def make(draft: Draft) -> None:
        with draft.file("agreement.json") as path:
            path.write_text(json.dumps(compute(), allow_nan=False), encoding="utf-8")

    asked = {name: value for name, value in config.items() if name not in KEPT_BY}
    found = store.get_or_make("agreement", VERSION, asked, inputs, make)
    return dict(json.loads((found.checked().path / "agreement.json").read_text(encoding="utf-8")))


def _ready(sides: Sides, asked: Asked) -> dict[str, list[View]]:
    """Axis -> what is to be embedded of each side, when all has been refused that can be before that."""
    check_sides(sides, asked.max_quarantined)
    axes = _axes(sides, asked)
    check_axes(asked, axes, sides)
    check_pool(asked, axes, sides.pool)
    check_material(axes, sides, asked.max_quarantined)
    if asked.check_padding:
        padded(axes)
    return {axis: _views(encoder, sides, asked) for axis, encoder in axes.items()}


def _axes(sides: Sides, asked: Asked) -> Mapping[str, str]:
    """Those asked for, else what all sides can be measured on.

    An item that lacks what others have is for the quarantine rule to judge: dropping the axis for it would select by
    another one in silence.
    """
    if asked.axes is not None:
        return asked.axes
    if sides.pool.ready is not None:
        return {"internal": READY}

    def has(field: str) -> bool:
        return all(
            any(getattr(sample, field) for sample in side.samples) for side in (sides.pool, *sides.harm.values())
        )

    axes = {axis: encoder for axis, encoder, field in DEFAULTS if has(field)}
    if not axes:
        raise UndersongError(
            "The pool and the harm set have neither text nor audio in common; fill one column in both."
        )
    return axes


# --- what is embedded ---
def _views(encoder: str, sides: Sides, asked: Asked) -> list[View]:
    """One encoder on every side (none of ready embeddings).  One that is fitted is fitted on all of them: words that it
    did not know would weigh nothing, and what is left of a text would lie too near."""
    fit = [side.corpus for side in sides.all if side.corpus is not None]
    engines = (asked.engine, *(AT_ONCE for _ in sides.all[1:]))
    return [
        View(encoder, side.corpus, fit, asked.model, engine=engine)
        for side, engine in zip(sides.all, engines)
        if side.corpus is not None
    ]


def _vectors(shop: Workshop, sides: Sides, views: Sequence[View]) -> list[Embeddings]:
    """Of every side: pool, harm sets, harmless speech."""
    from undersong.encoders.vectors import read_embeddings

    ready = [side.ready for side in sides.all if side.ready is not None]
    return ready or [read_embeddings(embeddings(shop, view).checked().path) for view in views]


def _lost(pool: Side, vectors: Mapping[str, Sequence[Embeddings]]) -> tuple[Quarantined, ...]:
    """Pool items that some step could not use, once each, with all reasons."""
    reasons: dict[str, list[str]] = {}
    for item in pool.quarantined:
        reasons.setdefault(item.id, []).append(item.reason)
    for axis, made in vectors.items():
        for item in made[0].quarantined:
            reasons.setdefault(item.id, []).append(f"{axis}: {item.reason}")
    return tuple(Quarantined(id, "; ".join(why)) for id, why in reasons.items())


def _refuse_lost(
    pool: Side, vectors: Mapping[str, Sequence[Embeddings]], lost: Sequence[Quarantined], most: float
) -> None:
    """By the axes that lost them: what is ranked later lacks them on every axis, and would blame the first."""
    from undersong.proximity import check_quarantine

    named = [axis for axis, made in vectors.items() if made[0].quarantined]
    where = f"on {'axis' if len(named) == 1 else 'the axes'} {', '.join(named)}"
    first = next(iter(vectors.values()))[0]
    total = len(first.ids) + len(first.quarantined) + len(pool.quarantined)
    check_quarantine(where if named else "as it is", lost, total, (), most)


def _question(sets: Mapping[str, str], sides: Sides, asked: Asked) -> tuple[dict[str, Any], dict[str, Artefact | str]]:
    """What the findings depend on: the options, the corpora and the weights.  Not how the kept set is written."""
    from undersong.encoders.options import parse_encoder
    from undersong.encoders.weights import encoder_weights_hash
    from undersong.models.folders import model_hash
    from undersong.pipeline.stages.transcribed import asr_of
    from undersong.proximity import ids_hash
    from undersong.store.code import code_hash

    asked_for = asked.axes or {}
    config = {
        "axes": [[axis, encoder] for axis, encoder in asked_for.items()],
        "harm": list(sets),
        "by": asked.by,
        "to": asked.to,
        "score": asked.score,
        "centre": asked.centre,
        "keep": asked.keep,
        "also": list(asked.also),
        "like": None if asked.like is None else ids_hash(liked(asked)),
        "seed": asked.seed,
        "max_quarantined": asked.max_quarantined,
        "check_padding": asked.check_padding,
        "loading": asked.loading.key,
    }
    inputs: dict[str, Artefact | str] = {f"side{i}": side.hash for i, side in enumerate(sides.all)}
    specs = [encoder for encoder in asked_for.values() if encoder != READY]
    weights = [asked.model, *(parse_encoder(spec).weights for spec in specs), *(asr_of(spec) for spec in specs)]
    inputs |= {f"weights{i}": model_hash(ref) for i, ref in enumerate(dict.fromkeys(filter(None, weights)))}
    voices = dict.fromkeys(read.canonical for read in map(parse_encoder, specs) if read.kind == "speaker")
    inputs |= {f"speaker{i}": str(encoder_weights_hash(parse_encoder(spec))) for i, spec in enumerate(voices)}
    code = dict.fromkeys(filter(None, (parse_encoder(spec).code for spec in specs)))
    inputs |= {f"code{i}": code_hash(ref) for i, ref in enumerate(code)}
    return config, inputs
