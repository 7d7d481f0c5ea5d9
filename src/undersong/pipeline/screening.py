"""What a screening says beside its ranking: how far axes agree, what a model hears, what is kept, how near a pool is.

Plain data for `screening.json`.  Knows proximity; does not know files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from undersong.pipeline.sides import Side
from undersong.types import Embeddings

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity import Selection

LARGE = 50_000  # items from which fewer bootstrap draws have to do
NAMED = 50  # near-duplicates that are named; all are counted


def screening_report(
    tables: Mapping[str, pa.Table],
    vectors: Mapping[str, Embeddings],
    encoders: Mapping[str, str],
    selection: Selection,
    sides: tuple[Side, Side],
    facts: pa.Table | None,
    harmless: Mapping[str, pa.Table] | None,
    calm: Side | None,
) -> dict[str, Any]:
    """`axes` (name -> encoder), `agreement` of every two, `fingerprint` of each internal axis, `selection`,
    `screening_score` an axis where there is harmless speech, and `near_duplicates` of pool and harm by their texts.

    Intervals are over whole groups where the manifest has them; 1000 draws, 100 from 50,000 items on.
    """
    from undersong.encoders import is_internal
    from undersong.proximity import axis_pairs, facts_of, fingerprint, screening_score, selection_report

    draws = 1000 if len(next(iter(tables.values()))) < LARGE else 100
    report: dict[str, Any] = {"axes": dict(encoders)}
    if tied := cut_ties(selection, tables[selection.axis]):
        report["ties"] = tied
    if len(tables) > 1 and len(selection.ids) < len(tables[selection.axis]) > 3:
        pairs = axis_pairs(tables, vectors=vectors, facts=facts, draws=draws)
        report["agreement"] = [asdict(pair) for pair in pairs]
    own = [axis for axis in tables if is_internal(encoders[axis])]
    references = {axis: table for axis, table in tables.items() if axis not in own}
    if references and len(tables[selection.axis]) > 3:
        report["fingerprint"] = [
            asdict(fingerprint(references, tables[axis], vectors=vectors, facts=facts, draws=draws)) for axis in own
        ]
    if facts is not None:
        report["selection"] = selection_report({str(selection.kind): selection}, tables, facts)
        report["near_duplicates"] = near_duplicates(sides)
    if harmless is not None:
        known = facts_of(calm.samples) if calm is not None and calm.samples else None
        report["screening_score"] = [
            asdict(screening_score(tables[axis], table, facts=facts, harmless_facts=known, draws=draws))
            for axis, table in harmless.items()
        ]
    return report


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


def near_duplicates(sides: Sequence[Side]) -> dict[str, Any]:
    """Pairs of pool and harm whose texts are nearly the same: how many, and the first of them.  Audio is compared for
    being the very same alone, so items without a text are not checked, and counted."""
    from undersong.corpora import find_shared

    found, _ = find_shared({"pool": sides[0].samples, "harm": sides[1].samples}, sound=None)
    bare = [sum(not (sample.text or "").strip() for sample in side.samples) for side in sides[:2]]
    return {"by": "text", "without_text": bare, "pairs": len(found), "first": [asdict(pair) for pair in found[:NAMED]]}
