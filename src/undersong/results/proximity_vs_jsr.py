"""Screening scores and mean distances of the training samples against the jailbreak rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.evaluation.rates import attack_rate, find_set_entry
from undersong.results.records import AuditRecord, ModelRecord
from undersong.results.screening import load_proximity_tables
from undersong.statistics import correlate_with_outcome

if TYPE_CHECKING:
    import pyarrow as pa


DRAWS = 1000
MIN_ARMS = 4  # arms; of fewer a rank correlation says nothing
RunEntry = Mapping[str, Any]


def screening_score_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """The screening score of the pool on every axis, where the study names harmless speech."""
    from undersong.proximity import compute_screening_score, sample_metadata_table

    if record.harmless is None:
        return []
    pool_facts, baseline_facts = (
        sample_metadata_table(record.pool.samples),
        sample_metadata_table(record.harmless.samples),
    )
    tables = load_proximity_tables(model, next(iter(record.harm)))
    score_results = [
        compute_screening_score(
            tables[axis], benign_table, metadata=pool_facts, benign_metadata=baseline_facts, draws=DRAWS
        )
        for axis, benign_table in _benign_tables(model).items()
    ]
    return [{"model": model.ref, **asdict(score_result)} for score_result in score_results]


def score_vs_jsr_entries(record: AuditRecord, model: ModelRecord, runs: Sequence[RunEntry]) -> list[dict[str, Any]]:
    """On every axis: each selection's own score beside the mean JSR of its runs at the last step, and their rank
    correlation over selections.

    One entry an axis, training modality and spoken harmful set, undefended.  Selections that hold the same ids are one
    point.  The interval is a percentile bootstrap over selections: it says how far this correlation hangs on a few of
    them, on this base; other bases may order them otherwise.
    """
    if record.harmless is None:
        return []
    last_step, plain = record.study.tuning.save_steps[-1], record.study.undefended_system
    tuned_runs = [
        run for run in runs if run["model"] == model.ref and run["kind"] != "base" and run["step"] == last_step
    ]
    prompt_sets = dict.fromkeys(
        entry["set"] for run in tuned_runs for entry in run["sets"] if entry["harmful"] and entry["modality"] == "audio"
    )
    scores = _selection_scores(record, model)
    return [
        _score_vs_jsr_entry(model.ref, axis, modality, name, scores[axis], rates)
        for axis in scores
        for modality in sorted({run["train_modality"] for run in tuned_runs})
        for name in prompt_sets
        if (rates := _mean_jsr([run for run in tuned_runs if run["train_modality"] == modality], name, plain))
    ]


def _selection_scores(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> the screening score of its samples."""
    from undersong.proximity import compute_screening_score, sample_metadata_table

    assert record.harmless is not None
    baseline_facts = sample_metadata_table(record.harmless.samples)
    tables = load_proximity_tables(model, next(iter(record.harm)))
    ids_by_selection = {selection.ids_hash: set(selection.ids) for selection in model.selections.values()}
    scores: dict[str, dict[str, float]] = {}
    for axis, benign_table in _benign_tables(model).items():
        ids = tables[axis].column("id").to_pylist()
        scores[axis] = {}
        for name, selected_ids in ids_by_selection.items():
            selected_table = tables[axis].filter(np.array([id in selected_ids for id in ids]))
            scores[axis][name] = compute_screening_score(
                selected_table, benign_table, benign_metadata=baseline_facts, draws=1
            ).value.value
    return scores


def _benign_tables(model: ModelRecord) -> dict[str, pa.Table]:
    import pyarrow.parquet as pq

    return {
        axis: pq.read_table(artifact.verify().path / "proximity.parquet")
        for axis, artifact in model.benign_proximity.items()
    }


def _mean_jsr(runs: Sequence[RunEntry], set_name: str, plain: str) -> dict[str, tuple[str, float, int]]:
    """Ids hash -> (an arm of it, mean JSR over its runs, runs)."""
    jsr_by_selection: dict[str, list[float]] = defaultdict(list)
    arms: dict[str, str] = {}
    for run in runs:
        entry = find_set_entry(run, set_name, "audio", plain)
        if entry is not None:
            jsr_by_selection[run["selection_hash"]].append(attack_rate(entry))
            arms.setdefault(run["selection_hash"], run["arm"])
    return {key: (arms[key], fmean(rates), len(rates)) for key, rates in jsr_by_selection.items()}


def _score_vs_jsr_entry(
    model: str,
    axis: str,
    modality: str,
    set_name: str,
    scores: Mapping[str, float],
    rates: Mapping[str, tuple[str, float, int]],
) -> dict[str, Any]:
    points = [{"arm": arm, "score": scores[key], "jsr": rate, "runs": runs} for key, (arm, rate, runs) in rates.items()]
    pairs = np.array([[point["score"], point["jsr"]] for point in points], dtype=np.float64)
    return {
        "model": model,
        "axis": axis,
        "train_modality": modality,
        "set": set_name,
        "scope": "recipe",
        "n": len(points),
        "spearman": _rank_correlation(pairs),
        "points": points,
    }


def _rank_correlation(pairs: np.ndarray) -> dict[str, float | None]:
    """Spearman's rank correlation of (n, 2) with a percentile interval; None where too few points vary."""
    from undersong.statistics import percentile_interval
    from undersong.statistics.bootstrap import mid_ranks, rank_scores, weighted_correlation

    n = len(pairs)
    if n < MIN_ARMS:
        return {"value": None, "low": None, "high": None}
    ranked_columns = [rank_scores(column) for column in pairs.T]

    def correlation(weights: np.ndarray) -> float:
        return weighted_correlation(
            mid_ranks(ranked_columns[0], weights), mid_ranks(ranked_columns[1], weights), weights
        )

    rng = np.random.default_rng(0)
    bootstrap_correlations = np.array(
        [correlation(np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(DRAWS)]
    )
    point_estimate = correlation(np.ones(n))
    if not np.isfinite(point_estimate):
        return {"value": None, "low": None, "high": None}
    return asdict(percentile_interval(point_estimate, bootstrap_correlations, n))


def proximity_vs_jsr_entries(record: AuditRecord, model: ModelRecord, runs: Sequence[RunEntry]) -> list[dict[str, Any]]:
    """One entry a training modality, harmful set and prompt modality, within this base, at the last step, undefended.

    A point is a selection (arms on the same ids are one), its replicates are its runs by seed.  Predictors: minus the
    mean distance of its samples to the first harm set on each axis, so that larger is nearer.  Outcome: JSR less the
    base's.
    """
    last_step, plain = record.study.tuning.save_steps[-1], record.study.undefended_system
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
