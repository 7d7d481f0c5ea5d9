"""What a screening finds beside its ranking: how far axes agree, what a model hears, what is kept, how near a pool is.

Plain data for `screening.json`.  Knows proximity; does not know files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.pipeline.screening.asked import Asked, liked, one_of
from undersong.pipeline.screening.sides import Side, Sides
from undersong.pipeline.screening.writing import Found
from undersong.types import Embeddings, Quarantined

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection
    from undersong.proximity.choosing.keep import Keep

LARGE = 50_000  # items from which fewer bootstrap draws have to do
NAMED = 50  # near-duplicates that are named; all are counted
CLOSEST = 10  # items an axis that are shown beside what they are close to
Vectors = Mapping[str, Sequence[Embeddings]]  # axis -> of every side


def findings(
    sides: Sides,
    axes: Mapping[str, str],
    vectors: Vectors,
    lost: Sequence[Quarantined],
    rules: Mapping[str, tuple[Keep, int]],
    asked: Asked,
    once: Callable[[Callable[[], dict[str, Any]]], dict[str, Any]],
) -> Found:
    """Tables of every axis to all harm sets, the selections on one axis and set, and what is to be said of both.

    `screening.json`: `axes` (name -> encoder), `selected_by`, `distances` and `closest` of every axis and harm set,
    `agreement` of every two axes, `fingerprint` of each internal axis, `selection` (by rule), `screening_score` an axis
    and harm set where there is harmless speech, and `near_duplicates` of pool and harm by texts and sound.  All but
    `distances`, `closest` and the scores are to the harm set that is selected by.  Intervals are over whole groups
    where the manifest has them; 1000 draws, 100 from 50,000 items on. `once` gives what its function gives, from
    the store where that is known: agreement takes longest and does not depend on what is kept.
    """
    from undersong.encoders.vectors import without
    from undersong.proximity import choose, facts_of, to_harm_set

    kept = {axis: without(made[0], lost) for axis, made in vectors.items()}
    whole = {axis: _tables(axis, kept[axis], made, sides, asked) for axis, made in vectors.items()}
    by, to = one_of("axis", asked.by, axes), one_of("harm set", asked.to, sides.harm)
    tables = {axis: to_harm_set(table, to) for axis, table in whole.items()}
    facts = facts_of(sides.pool.samples) if sides.pool.samples else None
    others = {axis: table for axis, table in tables.items() if axis != by}
    like = None if asked.like is None else liked(asked)
    alike = [label for label, (rule, _) in rules.items() if rule.matched] or [*rules]  # who takes the shares of `like`
    selections = {
        label: choose(tables[by], rule, seed, facts=facts, others=others, like=like if label in alike else None)
        for label, (rule, seed) in rules.items()
    }

    draws = 1000 if len(tables[by]) < LARGE else 100
    report: dict[str, Any] = {"axes": dict(axes), "selected_by": {"axis": by, "harm_set": to}}
    report |= {"distances": _distances(whole), "closest": _closest(whole, sides)}
    if tied := cut_ties(next(iter(selections.values())), tables[by]):
        report["ties"] = tied
    report |= once(lambda: _agreement(axes, tables, kept, facts, draws))
    if facts is not None:
        report["selection"] = _beside_pool(selections, tables, facts)
        report["near_duplicates"] = near_duplicates(sides)
    if sides.calm is not None:
        calm = {axis: _tables(axis, made[-1], made, sides, asked) for axis, made in vectors.items()}
        report["screening_score"] = _scores(whole, calm, sides, facts, draws)
    return Found(whole, selections, report)


def _tables(axis: str, pool: Embeddings, made: Sequence[Embeddings], sides: Sides, asked: Asked) -> pa.Table:
    from undersong.proximity import proximity_tables

    harm = dict(zip(sides.harm, made[1:]))
    return proximity_tables(
        axis, pool, harm, score=asked.score, centre=asked.centre, max_quarantined=asked.max_quarantined
    )


def _distances(whole: Mapping[str, pa.Table]) -> list[dict[str, Any]]:
    """How far the pool is, by axis and harm set, in the score it is ranked by."""
    from undersong.proximity import how, scores

    out = []
    for axis, name, table in _each(whole):
        quartiles = np.quantile(scores(table).astype(np.float64), [0, 0.25, 0.5, 0.75, 1]).tolist()
        spread = dict(zip(("min", "q25", "median", "q75", "max"), quartiles))
        facts = how(table)
        said = {"axis": axis, "harm_set": name, "n": len(table), "score": facts["score"], "centred": facts["centred"]}
        out.append({**said, **spread})
    return out


def _closest(whole: Mapping[str, pa.Table], sides: Sides) -> list[dict[str, Any]]:
    """The first of every ranking, beside the harmful item each is nearest to."""
    import pyarrow.compute as pc

    from undersong.proximity import margin, scores
    from undersong.proximity.table import how

    said, out = sides.pool.texts, []
    for axis, name, table in _each(whole):
        table = table.append_column("score", [scores(table)])
        if how(table)["score"] == "nearest":
            table = table.append_column("margin", [margin(table)])
        first = table.filter(pc.less_equal(table.column("rank"), CLOSEST)).sort_by("rank").to_pylist()
        for row in first:
            gap = row.get("margin")
            out.append(
                {
                    "axis": axis,
                    "harm_set": name,
                    "rank": row["rank"],
                    "id": row["id"],
                    "text": said.get(row["id"]),
                    "score": row["score"],
                    "nearest_id": row["nearest_id"],
                    "nearest_text": sides.harm[name].texts.get(row["nearest_id"]),
                    "margin": gap if gap is not None and np.isfinite(gap) else None,
                }
            )
    return out


def _each(whole: Mapping[str, pa.Table]) -> list[tuple[str, str, pa.Table]]:
    from undersong.proximity import to_harm_set
    from undersong.proximity.choosing.ranking import harm_sets

    return [(axis, name, to_harm_set(table, name)) for axis, table in whole.items() for name in harm_sets(table)]


def _agreement(
    axes: Mapping[str, str],
    tables: Mapping[str, pa.Table],
    vectors: Mapping[str, Embeddings],
    facts: pa.Table | None,
    draws: int,
) -> dict[str, Any]:
    """`agreement` and `fingerprint`, as far as there are axes and items for them."""
    from undersong.encoders import is_internal
    from undersong.proximity import axis_pairs, fingerprint

    out: dict[str, Any] = {}
    items = len(next(iter(tables.values())))
    if len(tables) > 1 and items > 3:
        pairs = axis_pairs(tables, vectors=vectors, facts=facts, draws=draws)
        out["agreement"] = [asdict(pair) for pair in pairs]
    own = [axis for axis in tables if is_internal(axes[axis])]
    references = {axis: table for axis, table in tables.items() if axis not in own}
    if references and items > 3:
        made = [fingerprint(references, tables[axis], vectors=vectors, facts=facts, draws=draws) for axis in own]
        out["fingerprint"] = [asdict(one) for one in made]
    return out


def _beside_pool(
    selections: Mapping[str, Selection], tables: Mapping[str, pa.Table], facts: pa.Table
) -> dict[str, Any]:
    from dataclasses import replace

    from undersong.proximity import selection_report

    # `tables` are to the one harm set that was selected by, so there is none to choose from.
    return selection_report({label: replace(one, harm_set="") for label, one in selections.items()}, tables, facts)


def _scores(
    whole: Mapping[str, pa.Table], calm: Mapping[str, pa.Table], sides: Sides, facts: pa.Table | None, draws: int
) -> list[dict[str, Any]]:
    from undersong.proximity import facts_of, screening_score, to_harm_set

    known = facts_of(sides.calm.samples) if sides.calm is not None and sides.calm.samples else None
    return [
        asdict(screening_score(table, to_harm_set(calm[axis], name), facts=facts, harmless_facts=known, draws=draws))
        for axis, name, table in _each(whole)
    ]


def cut_ties(selection: Selection, table: pa.Table) -> str | None:
    """A sentence where items with the score at the cut are on both sides of it: ids decided between them."""
    from undersong.proximity import scores

    if selection.kind not in ("closest", "distant"):
        return None
    values = dict(zip(table.column("id").to_pylist(), scores(table).tolist()))
    pick = max if selection.kind == "closest" else min
    cut = pick(values[i] for i in selection.ids)
    tied, inside = (sum(values[i] == cut for i in ids) for ids in (values, selection.ids))
    if inside == tied:
        return None
    return f"{tied} items share the score at the cut ({cut:.6g}); {inside} of them were taken, by id."


def near_duplicates(sides: Sides) -> dict[str, Any]:
    """Pairs of pool and harm whose texts or sounds are nearly the same: how many of each kind, and the first of them.

    `unchecked`: items of pool and harm that have neither a text nor a fingerprint (as where no axis listens)."""
    from undersong.corpora import count_shared, find_shared

    found = []
    for name, side in sides.harm.items():
        other = name if name != "pool" else "harm set pool"
        both = {"pool": sides.pool, other: side}
        prints = {called: one.prints for called, one in both.items()}
        found += find_shared({called: one.samples for called, one in both.items()}, prints=prints)[0]
    kinds: dict[str, int] = {}
    for _, _, kind, pairs in count_shared(found):
        kinds[kind] = kinds.get(kind, 0) + pairs
    bare = [_unchecked(sides.pool), sum(map(_unchecked, sides.harm.values()))]
    return {"kinds": kinds, "unchecked": bare, "pairs": len(found), "first": [asdict(pair) for pair in found[:NAMED]]}


def _unchecked(side: Side) -> int:
    return sum(not (sample.text or "").strip() and sample.id not in side.prints for sample in side.samples)
