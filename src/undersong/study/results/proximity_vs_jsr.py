"""Screening scores and mean distances of the training samples against the jailbreak rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np

from undersong.results.schema import RunResult
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_outcomes import PredictorRecord, ProximityVsJsrRecord
from undersong.results.schema_screening import (
    CorpusCounts,
    ScoreVsJsrPoint,
    ScoreVsJsrRecord,
    ScreeningScoreRecord,
    ThresholdPointRecord,
)
from undersong.statistics.regression import MIN_RANK_POINTS, RegressionResult, correlate_with_outcome
from undersong.store.parquet import read_parquet
from undersong.study.results.comparisons import harm_metric, harmful_prompts, tuned_runs
from undersong.study.results.records import AuditRecord, ModelRecord
from undersong.study.results.screening import load_proximity_tables

if TYPE_CHECKING:
    import pyarrow as pa

    from undersong.proximity.screening_score import ScreeningScore

DRAWS = 1000


def screening_score_records(record: AuditRecord, model: ModelRecord) -> list[ScreeningScoreRecord]:
    """Compute the screening score of the pool on every axis, if the study names a corpus of benign speech."""
    from undersong.proximity.screening_score import compute_screening_score
    from undersong.proximity.strata import sample_metadata_table

    if record.benign_reference is None:
        return []
    pool_facts, baseline_facts = (
        sample_metadata_table(record.pool.samples),
        sample_metadata_table(record.benign_reference.samples),
    )
    tables = load_proximity_tables(model, next(iter(record.harm)))
    score_results = [
        compute_screening_score(
            tables[axis], benign_table, metadata=pool_facts, benign_metadata=baseline_facts, draws=DRAWS
        )
        for axis, benign_table in _benign_tables(model).items()
    ]
    return [_screening_score_record(model.ref, score) for score in score_results]


def _screening_score_record(model: str, score: ScreeningScore) -> ScreeningScoreRecord:
    interval = ValueWithInterval.from_interval
    return ScreeningScoreRecord(
        model=model,
        axis=score.axis,
        harm_set=score.harm_set,
        score=score.score,
        n=_corpus_counts(score.n),
        clusters=_corpus_counts(score.clusters),
        value=interval(score.value),
        held_out=interval(score.heldout),
        curve=[
            ThresholdPointRecord(
                quantile=point.q,
                threshold=point.threshold,
                share=interval(point.share),
                held_out_share=interval(point.heldout_share),
                excess=interval(point.excess),
                mass=interval(point.mass),
                held_out_mass=interval(point.heldout_mass),
            )
            for point in score.curve
        ],
    )


def _corpus_counts(counts: tuple[int, int, int]) -> CorpusCounts:
    return CorpusCounts(pool=counts[0], benign_reference=counts[1], held_out=counts[2])


def score_vs_jsr_records(record: AuditRecord, model: ModelRecord, runs: Sequence[RunResult]) -> list[ScoreVsJsrRecord]:
    """Pair each selection's own score with the mean JSR of its runs, and compute their rank correlation.

    There is one record per axis, training modality and spoken harmful set, undefended and at the last step. Selections
    of the same ids are one point. The interval is a percentile bootstrap over selections: it shows how much the
    correlation depends on a few of them. It holds for this base; another may order the selections differently.
    """
    if record.benign_reference is None:
        return []
    last_step, plain = record.study.tuning.save_steps[-1], record.study.undefended_system
    tuned = [run for run in tuned_runs(runs, last_step) if run.model == model.ref]
    prompt_sets = dict.fromkeys(
        rate.prompt_set for run in tuned for rate in run.rates if rate.harmful and rate.modality == "audio"
    )
    scores = _selection_scores(record, model)
    return [
        ScoreVsJsrRecord(
            model=model.ref,
            axis=axis,
            train_modality=modality,
            prompt_set=name,
            metric=harm_metric(tuned),
            n=len(points),
            spearman=_rank_correlation(np.array([[point.score, point.rate] for point in points], dtype=np.float64)),
            points=points,
        )
        for axis in scores
        for modality in sorted({str(run.train_modality) for run in tuned})
        for name in prompt_sets
        if (points := _points([run for run in tuned if run.train_modality == modality], name, plain, scores[axis]))
    ]


def _selection_scores(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> the screening score of its samples."""
    from undersong.proximity.screening_score import compute_screening_score
    from undersong.proximity.strata import sample_metadata_table

    assert record.benign_reference is not None
    baseline_facts = sample_metadata_table(record.benign_reference.samples)
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

    return {
        axis: read_parquet(artifact.path / "proximity.parquet") for axis, artifact in model.benign_proximity.items()
    }


def _points(runs: Sequence[RunResult], set_name: str, plain: str, scores: Mapping[str, float]) -> list[ScoreVsJsrPoint]:
    """One point a selection, named by the first arm that was trained on it."""
    rates: dict[str, list[float]] = defaultdict(list)
    arms: dict[str, str] = {}
    for run in runs:
        rate = run.find_rate(set_name, "audio", plain)
        if rate is not None and run.selection_hash is not None:
            rates[run.selection_hash].append(rate.rate)
            arms.setdefault(run.selection_hash, run.arm)
    return [
        ScoreVsJsrPoint(arm=arms[key], selection_hash=key, score=scores[key], rate=fmean(values), n_runs=len(values))
        for key, values in rates.items()
    ]


def _rank_correlation(pairs: np.ndarray) -> ValueWithInterval:
    """Compute Spearman's rank correlation of (n, 2) with a percentile interval; None if too few points vary."""
    from undersong.statistics.bootstrap import mid_ranks, percentile_interval, rank_scores, weighted_correlation

    n = len(pairs)
    if n < MIN_RANK_POINTS:
        return ValueWithInterval()
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
        return ValueWithInterval()
    return ValueWithInterval.from_interval(percentile_interval(point_estimate, bootstrap_correlations, n))


def proximity_vs_jsr_records(
    record: AuditRecord, model: ModelRecord, runs: Sequence[RunResult]
) -> list[ProximityVsJsrRecord]:
    """Compute one record per training modality, harmful set and prompt modality, within this base and undefended.

    A point is a selection at the last step (arms on the same ids are one); its replicates are its runs by seed. The
    predictors are minus the mean distance of its samples to the first harm set on each axis, so that larger is nearer.
    The outcome is the JSR minus the base's.
    """
    plain = record.study.undefended_system
    model_runs = [run for run in runs if run.model == model.ref]
    base = next(run for run in model_runs if run.kind == "base")
    tuned = tuned_runs(model_runs, record.study.tuning.save_steps[-1])
    closeness = _mean_closeness(record, model)
    records = []
    for train_modality in sorted({str(run.train_modality) for run in tuned}):
        for name, modality in harmful_prompts(tuned):
            rises = _jsr_rises([r for r in tuned if r.train_modality == train_modality], base, name, modality, plain)
            if len(rises) > 1:
                x = np.array([[closeness[axis][ids] for axis in closeness] for ids in rises])
                regression = correlate_with_outcome(
                    tuple(closeness), x, [list(by_seed.values()) for by_seed in rises.values()]
                )
                records.append(regression_record(regression, model.ref, modality, train_modality, name))
    return records


def regression_record(
    regression: RegressionResult,
    model: str,
    modality: str,
    train_modality: str | None = None,
    prompt_set: str | None = None,
) -> ProximityVsJsrRecord:
    """Make the record of a regression on proximity, or on the change of the refusal gap.

    Args:
        regression: what statistics computed.
        model: the base within which the points lie.
        modality: of the prompts.
        train_modality: of the training; None where points differ in it.
        prompt_set: the harmful set.
    """
    interval = ValueWithInterval.from_interval
    return ProximityVsJsrRecord(
        model=model,
        train_modality=train_modality,
        prompt_set=prompt_set,
        modality=modality,
        points=regression.points,
        replicates=regression.replicates,
        predictors=[
            PredictorRecord(
                name=fit.name,
                rank_correlation=interval(fit.rank),
                slope=interval(fit.slope),
                joint_slope=None if fit.joint is None else interval(fit.joint),
                variance_inflation=fit.inflation,
                dominant_share=fit.dominant,
            )
            for fit in regression.predictors
        ],
        note=regression.note or None,
    )


def _mean_closeness(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> minus the mean distance of its samples."""
    from undersong.proximity.table import ranking_scores

    closeness: dict[str, dict[str, float]] = {}
    for axis, table in load_proximity_tables(model, next(iter(record.harm))).items():
        by_id = dict(zip(table.column("id").to_pylist(), ranking_scores(table).astype(float).tolist()))
        selections = model.selections.values()
        closeness[axis] = {
            selection.ids_hash: -float(np.mean([by_id[i] for i in selection.ids])) for selection in selections
        }
    return closeness


def _jsr_rises(
    runs: Sequence[RunResult], base: RunResult, set_name: str, modality: str, plain: str
) -> dict[str, dict[int, float]]:
    """Ids hash -> seed -> JSR rise."""
    rises: dict[str, dict[int, float]] = defaultdict(dict)
    base_rate = base.find_rate(set_name, modality, plain)
    for run in runs:
        rate = run.find_rate(set_name, modality, plain)
        if rate is not None and base_rate is not None and run.selection_hash is not None and run.seed is not None:
            rises[run.selection_hash][run.seed] = rate.rate - base_rate.rate
    return dict(rises)
