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

from undersong.pipeline.records import AuditRecord, ModelRecord
from undersong.pipeline.results.rates import attack_rate, find_rate
from undersong.pipeline.results.screened import tables_to

if TYPE_CHECKING:
    import pyarrow as pa

DRAWS = 1000
FEWEST = 4  # arms; of fewer a rank correlation says nothing
Run = Mapping[str, Any]


def score_entries(record: AuditRecord, model: ModelRecord) -> list[dict[str, Any]]:
    """The screening score of the pool on every axis, where the study names harmless speech."""
    from undersong.proximity import facts_of, screening_score

    if record.harmless is None:
        return []
    facts, known = facts_of(record.pool.samples), facts_of(record.harmless.samples)
    tables = tables_to(model, next(iter(record.harm)))
    made = [
        screening_score(tables[axis], calm, facts=facts, harmless_facts=known, draws=DRAWS)
        for axis, calm in _calm(model).items()
    ]
    return [{"model": model.ref, **asdict(one)} for one in made]


def foretold_entries(record: AuditRecord, model: ModelRecord, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """On every axis: each selection's own score beside the mean JSR of its runs at the last step, and their rank
    correlation over selections.

    One entry an axis, training modality and spoken harmful set, undefended.  Selections that hold the same ids are one
    point.  The interval is a percentile bootstrap over selections: it says how far this correlation hangs on a few of
    them, on this base; other bases may order them otherwise.
    """
    if record.harmless is None:
        return []
    last, plain = record.study.tuning.steps[-1], record.study.plain
    mine = [run for run in runs if run["model"] == model.ref and run["kind"] != "base" and run["step"] == last]
    asked = dict.fromkeys(e["set"] for run in mine for e in run["sets"] if e["harmful"] and e["modality"] == "audio")
    scores = _scores(record, model)
    return [
        _entry(model.ref, axis, modality, name, scores[axis], rates)
        for axis in scores
        for modality in sorted({run["train_modality"] for run in mine})
        for name in asked
        if (rates := _rates([run for run in mine if run["train_modality"] == modality], name, plain))
    ]


def _scores(record: AuditRecord, model: ModelRecord) -> dict[str, dict[str, float]]:
    """Axis -> ids hash of a selection -> the screening score of its samples."""
    from undersong.proximity import facts_of, screening_score

    assert record.harmless is not None
    known = facts_of(record.harmless.samples)
    tables = tables_to(model, next(iter(record.harm)))
    chosen = {one.ids_hash: set(one.ids) for one in model.selections.values()}
    out: dict[str, dict[str, float]] = {}
    for axis, calm in _calm(model).items():
        ids = tables[axis].column("id").to_pylist()
        out[axis] = {}
        for name, inside in chosen.items():
            part = tables[axis].filter(np.array([id in inside for id in ids]))
            out[axis][name] = screening_score(part, calm, harmless_facts=known, draws=1).value.value
    return out


def _calm(model: ModelRecord) -> dict[str, pa.Table]:
    import pyarrow.parquet as pq

    return {axis: pq.read_table(found.checked().path / "proximity.parquet") for axis, found in model.calm.items()}


def _rates(runs: Sequence[Run], name: str, plain: str) -> dict[str, tuple[str, float, int]]:
    """Ids hash -> (an arm of it, mean JSR over its runs, runs)."""
    found: dict[str, list[float]] = defaultdict(list)
    arms: dict[str, str] = {}
    for run in runs:
        entry = find_rate(run, name, "audio", plain)
        if entry is not None:
            found[run["selection_hash"]].append(attack_rate(entry))
            arms.setdefault(run["selection_hash"], run["arm"])
    return {key: (arms[key], fmean(rates), len(rates)) for key, rates in found.items()}


def _entry(
    model: str,
    axis: str,
    modality: str,
    name: str,
    scores: Mapping[str, float],
    rates: Mapping[str, tuple[str, float, int]],
) -> dict[str, Any]:
    points = [{"arm": arm, "score": scores[key], "jsr": rate, "runs": runs} for key, (arm, rate, runs) in rates.items()]
    pairs = np.array([[point["score"], point["jsr"]] for point in points], dtype=np.float64)
    return {
        "model": model,
        "axis": axis,
        "train_modality": modality,
        "set": name,
        "scope": "recipe",
        "n": len(points),
        "spearman": _correlation(pairs),
        "points": points,
    }


def _correlation(pairs: np.ndarray) -> dict[str, float | None]:
    """Spearman's rank correlation of (n, 2) with a percentile interval; None where too few points vary."""
    from undersong.statistics import interval
    from undersong.statistics.resampled import mid_ranks, ranked, weighted_correlation

    n = len(pairs)
    if n < FEWEST:
        return {"value": None, "low": None, "high": None}
    axes = [ranked(column) for column in pairs.T]

    def correlated(weights: np.ndarray) -> float:
        return weighted_correlation(mid_ranks(axes[0], weights), mid_ranks(axes[1], weights), weights)

    rng = np.random.default_rng(0)
    drawn = np.array([correlated(np.bincount(rng.integers(0, n, n), minlength=n).astype(float)) for _ in range(DRAWS)])
    whole = correlated(np.ones(n))
    if not np.isfinite(whole):
        return {"value": None, "low": None, "high": None}
    return asdict(interval(whole, drawn, n))
