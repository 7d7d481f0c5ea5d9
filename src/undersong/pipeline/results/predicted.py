"""Does proximity predict damage?  `predicts` of results.json: JSR rise against how near the training samples lie.

Knows runs and proximity tables; the statistics are made in their own room.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from undersong.evaluation.rates import attack_rate, find_set_entry
from undersong.results.records import AuditRecord, ModelRecord
from undersong.results.screening import load_proximity_tables
from undersong.statistics import correlate_with_outcome

RunEntry = Mapping[str, Any]


def proximity_vs_jsr_entries(record: AuditRecord, model: ModelRecord, runs: Sequence[RunEntry]) -> list[dict[str, Any]]:
    """One entry a training modality, harmful set and prompt modality, within this base, at the last step, undefended.

    A point is a selection (arms on the same ids are one), its replicates are its runs by seed.  Predictors: minus the
    mean distance of its samples to the first harm set on each axis, so that larger is nearer.  Outcome: JSR less the
    base's.
    """
    last_step, plain = record.study.tuning.steps[-1], record.study.undefended_system
    model_runs = [run for run in runs if run["model"] == model.ref]
    base = next(run for run in model_runs if run["kind"] == "base")
    tuned = [run for run in model_runs if run["kind"] != "base" and run["step"] == last_step]
    closeness = _mean_closeness(record, model)
    prompt_sets = sorted(
        {(entry["set"], entry["modality"]) for run in tuned for entry in run["sets"] if entry["harmful"]}
    )
    entries = []
    for train_modality in sorted({run["train_modality"] for run in tuned}):
        for name, modality in prompt_sets:
            base_entry = find_set_entry(base, name, modality, plain)
            rises = _jsr_rises(
                [r for r in tuned if r["train_modality"] == train_modality], name, modality, plain, base_entry
            )
            if len(rises) > 1:
                x = np.array([[closeness[axis][ids] for axis in closeness] for ids in rises])
                regression = correlate_with_outcome(
                    tuple(closeness), x, [list(by_seed.values()) for by_seed in rises.values()]
                )
                labels = {"model": model.ref, "train_modality": train_modality, "set": name, "modality": modality}
                entries.append({**labels, "scope": "recipe", **asdict(regression)})
    return entries


def _mean_closeness(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> minus the mean distance of its samples."""
    from undersong.proximity import ranking_scores

    closeness: dict[str, dict[str, float]] = {}
    for axis, table in load_proximity_tables(model, next(iter(record.harm))).items():
        by_id = dict(zip(table.column("id").to_pylist(), ranking_scores(table).astype(float).tolist()))
        selections = model.selections.values()
        closeness[axis] = {
            selection.ids_hash: -float(np.mean([by_id[i] for i in selection.ids])) for selection in selections
        }
    return closeness


def _jsr_rises(
    runs: Sequence[RunEntry], set_name: str, modality: str, plain: str, base_entry: Mapping[str, Any] | None
) -> dict[str, dict[int, float]]:
    """Ids hash -> seed -> JSR rise."""
    rises: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        entry = find_set_entry(run, set_name, modality, plain)
        if entry is not None and base_entry is not None:
            rises[run["selection_hash"]][run["seed"]] = attack_rate(entry) - attack_rate(base_entry)
    return dict(rises)
