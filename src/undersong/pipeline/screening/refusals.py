"""What a screening refuses before anything is read, and before anything is embedded.  Knows options and corpora."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from undersong.pipeline.engine import check_engine
from undersong.pipeline.screening.asked import CHATS, FORMS, READY, Asked, one_of, rules_asked
from undersong.pipeline.screening.sides import Side, Sides, refuse_lost
from undersong.types import Quarantined, UndersongError


def check_asked(asked: Asked, sets: Mapping[str, str], out: Path) -> None:
    """Before anything is read: options that do not go together, a store and an output inside each other."""
    check_engine(asked.engine)
    if asked.store is not None and (store := Path(asked.store).resolve()) in (out, *out.parents):
        raise UndersongError(f"{out} lies in the store {store}; name a folder outside it with --out.")
    if asked.store is not None and out in Path(asked.store).resolve().parents:
        raise UndersongError(f"The store {asked.store} lies in {out}, which is replaced as a whole; keep it elsewhere.")
    if asked.form not in FORMS:
        raise UndersongError(f"A kept set is not written as {asked.form!r}; take one of {', '.join(FORMS)}.")
    one_of("harm set", asked.to, sets)
    if asked.axes is not None:
        one_of("axis", asked.by, asked.axes)
    if asked.centre and asked.harmless is not None:
        raise UndersongError("A screening score cannot be centred: each set has its own centre; leave one of them out.")
    if asked.harmless is None and asked.harmless_columns:
        raise UndersongError("--harmless-column belongs to --harmless; name that set, or leave the columns out.")
    if asked.engine.shard is not None and asked.store is None:
        raise UndersongError("Jobs of one screening meet in a store; give all of them the same --store.")


def refuse_inside(sides: Sides, out: Path) -> None:
    """An output that is an input would be replaced."""
    folders: dict[str, str] = {}
    within = os.path.join(out, "")
    for place in (file for side in sides.all for file in side.files):
        if os.path.join(_real(place, folders), "").startswith(within):
            raise UndersongError(f"{place} is read and lies in {out}, which would be replaced; name another --out.")


def _real(place: str, folders: dict[str, str]) -> str:
    """A path without links; each folder is looked at once, because a pool has a million files in a few of them."""
    head, tail = os.path.split(os.path.abspath(place))
    if head not in folders:
        folders[head] = os.path.realpath(head)
    whole = os.path.join(folders[head], tail)
    return os.path.realpath(whole) if os.path.islink(whole) else whole


def check_axes(asked: Asked, axes: Mapping[str, str], sides: Sides) -> None:
    """A rule, a score, an axis or a model that cannot be."""
    from undersong.encoders import is_internal
    from undersong.proximity.choosing.ranking import count
    from undersong.proximity.table import parse_score

    one_of("axis", asked.by, axes)
    for name, side in sides.harm.items():
        kind, k = parse_score(asked.score, side.items)
        if kind == "knn" and k > side.items:
            raise UndersongError(
                f"There are no k = {k} neighbours of a harm set of {side.items} ({name}); take a smaller K."
            )
    for rule, _ in rules_asked(asked).values():
        if rule.kind in ("closest", "distant", "random"):
            count(rule.amount, sides.pool.items)
    for axis, encoder in axes.items():
        if sides.pool.ready is not None and encoder != READY:
            raise UndersongError(f"Axis {axis}: ready embeddings cannot go through {encoder}; write {axis}={READY}.")
        if sides.pool.ready is None and encoder == READY:
            raise UndersongError(
                f"Axis {axis}={READY} needs Parquet files with a column `embedding`; these are manifests."
            )
    if taught := next((axis for axis, encoder in axes.items() if encoder.partition(":")[0] == "gradients"), None):
        raise UndersongError(f"Axis {taught}: gradients need replies to learn; name that axis in a study, and run it.")
    own = [axis for axis, encoder in axes.items() if encoder != READY and is_internal(encoder)]
    if own and asked.model is None:
        raise UndersongError(f"Axis {own[0]} is what a model hears; name the model with --model.")
    if asked.model is not None and not own:
        raise UndersongError(f"No axis is what {asked.model} hears; add one, such as --axis ears=internal.")


def check_pool(asked: Asked, axes: Mapping[str, str], pool: Side) -> None:
    """What a rule and a form of what is kept want of the pool's columns."""
    from undersong.proximity import check_rule, facts_of

    columns = facts_of(pool.samples).column_names if pool.samples else []
    by = one_of("axis", asked.by, axes)
    for rule, _ in rules_asked(asked).values():
        check_rule(rule, columns, [axis for axis in axes if axis != by])
    if pool.ready is not None and asked.form != "manifest":
        raise UndersongError(f"Embeddings cannot be kept as {asked.form}; leave --form out, or screen a manifest.")
    if asked.form in CHATS and not any(sample.answer for sample in pool.samples):
        raise UndersongError(f"No item of {pool.ref} has an answer to train on, so no {asked.form} can be written.")


def check_material(axes: Mapping[str, str], sides: Sides, most: float) -> None:
    """What an axis cannot use because it has no text, or no audio: an hour of embedding would end in the same refusal.

    `most`: the share of the pool that may be lost.
    """
    from undersong.proximity import check_quarantine

    for axis, encoder in axes.items():
        lacking = {side.ref: _lacking(encoder, side) for side in sides.all}
        pool, where = sides.pool, f"on axis {axis}"
        for name, side in sides.harm.items():
            to = f"{where} to {name}" if len(sides.harm) > 1 else where
            total = pool.items + len(pool.quarantined)
            check_quarantine(to, lacking[pool.ref], total, lacking[side.ref], most)
        if sides.calm is not None:
            refuse_lost(f"cannot be used {where}", sides.calm, lacking[sides.calm.ref], most)


def _lacking(encoder: str, side: Side) -> list[Quarantined]:
    """Items of one side that an encoder finds nothing in.  What code of the user's own wants is for that to say."""
    from undersong.encoders.options import OF_TEXT, parse_encoder

    if encoder == READY or (read := parse_encoder(encoder)).code:
        return []
    text, audio = read.kind in OF_TEXT, read.hears
    return [
        Quarantined(sample.id, f"no {'text' if text else 'audio'}")
        for sample in side.samples
        if not (text and (sample.text or "").strip()) and not (audio and sample.audio is not None)
    ]
