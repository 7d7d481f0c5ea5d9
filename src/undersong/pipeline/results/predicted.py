"""Does proximity predict damage?  `predicts` of results.json: JSR rise against how near the training samples lie.

Knows runs and proximity tables; the statistics are made in their own room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.results.rates import attack_rate, find_rate
from undersong.pipeline.results.screened import tables_to
from undersong.statistics import predict

Run = Mapping[str, Any]


def predicted_entries(record: AuditRecord, model: ModelRecord, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """One entry a training modality, harmful set and prompt modality, within this base, at the last step, undefended.

    A point is a selection (arms on the same ids are one), its replicates are its runs by seed.  Predictors: minus the
    mean distance of its samples to the first harm set on each axis, so that larger is nearer.  Outcome: JSR less the
    base's.
    """
    last, plain = record.study.tuning.steps[-1], record.study.plain
    mine = [run for run in runs if run["model"] == model.ref]
    base = next(run for run in mine if run["kind"] == "base")
    tuned = [run for run in mine if run["kind"] != "base" and run["step"] == last]
    near = _nearness(record, model)
    asked = sorted({(e["set"], e["modality"]) for run in tuned for e in run["sets"] if e["harmful"]})
    out = []
    for trained in sorted({run["train_modality"] for run in tuned}):
        for name, modality in asked:
            before = find_rate(base, name, modality, plain)
            rises = _rises([r for r in tuned if r["train_modality"] == trained], name, modality, plain, before)
            if len(rises) > 1:
                x = np.array([[near[axis][ids] for axis in near] for ids in rises])
                found = predict(tuple(near), x, [list(by_seed.values()) for by_seed in rises.values()])
                facts = {"model": model.ref, "train_modality": trained, "set": name, "modality": modality}
                out.append({**facts, "scope": "recipe", **asdict(found)})
    return out


def _nearness(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> minus the mean distance of its samples."""
    from undersong.proximity import scores

    out: dict[str, dict[str, float]] = {}
    for axis, table in tables_to(model, next(iter(record.harm))).items():
        by_id = dict(zip(table.column("id").to_pylist(), scores(table).astype(float).tolist()))
        chosen = model.selections.values()
        out[axis] = {one.ids_hash: -float(np.mean([by_id[i] for i in one.ids])) for one in chosen}
    return out


def _rises(
    runs: Sequence[Run], name: str, modality: str, plain: str, before: Mapping[str, Any] | None
) -> dict[str, dict[int, float]]:
    """Ids hash -> seed -> JSR rise."""
    rises: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        entry = find_rate(run, name, modality, plain)
        if entry is not None and before is not None:
            rises[run["selection_hash"]][run["seed"]] = attack_rate(entry) - attack_rate(before)
    return dict(rises)
