"""The screening score of a study's pool, and how well the same score of each arm's samples foretold its damage.

Knows proximity tables and runs; does not know models.
"""

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

if TYPE_CHECKING:
    import pyarrow as pa

DRAWS = 1000
MIN_ARMS = 4  # arms; of fewer a rank correlation says nothing
RunEntry = Mapping[str, Any]


def screening_score_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """The screening score of the pool on every axis, where the study names harmless speech."""
    from undersong.proximity import sample_metadata_table, screening_score

    if record.harmless is None:
        return []
    pool_facts, baseline_facts = (
        sample_metadata_table(record.pool.samples),
        sample_metadata_table(record.harmless.samples),
    )
    tables = load_proximity_tables(model, next(iter(record.harm)))
    score_results = [
        screening_score(tables[axis], benign_table, metadata=pool_facts, benign_metadata=baseline_facts, draws=DRAWS)
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
    last_step, plain = record.study.tuning.steps[-1], record.study.undefended_system
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
    from undersong.proximity import sample_metadata_table, screening_score

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
            scores[axis][name] = screening_score(
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
    from undersong.statistics.resampled import mid_ranks, rank_scores, weighted_correlation

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
