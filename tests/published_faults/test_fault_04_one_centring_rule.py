"""Fault 4: the internal vectors are 99.96 % one mean, and only one of three models was centered."""

from __future__ import annotations

import numpy as np

from undersong.proximity.table import proximity_table, ranking_metadata
from undersong.study.load import parse_study
from undersong.study.schema import Study
from undersong.types import Embeddings


def spoken(rows: np.ndarray, prefix: str) -> Embeddings:
    return Embeddings(tuple(f"{prefix}{i}" for i in range(len(rows))), rows.astype(np.float32), np.ones(len(rows)))


def test_both_are_reported_and_digits_survive_a_common_mean() -> None:
    rng = np.random.default_rng(0)
    mean = 100 * rng.standard_normal(64)
    pool, harm = (mean + rng.standard_normal((n, 64)) for n in (200, 20))
    table = proximity_table("internal", "harm", spoken(pool, "p"), spoken(harm, "h"))
    unit = [rows.astype(np.float32).astype(np.float64) for rows in (pool, harm)]
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in unit]
    exact = (1 - unit[0] @ unit[1].T).min(axis=1)
    np.testing.assert_allclose(table.column("distance").to_numpy(), exact, rtol=1e-3)
    assert "distance_centered" in table.column_names
    centered = proximity_table("internal", "harm", spoken(pool, "p"), spoken(harm, "h"), center=True)
    assert ranking_metadata(centered)["centered"]
    assert not ranking_metadata(table)["centered"]


def test_a_study_has_one_rule_for_all_its_axes() -> None:
    """There is no key to center one axis and not another."""
    assert "center" in type(Study.model_fields["proximity"].default).model_fields
    data = {
        "study": "s", "models": ["m"], "pool": "p", "reference": "r", "axes": {"semantic": "tfidf"},
        "prompt_sets": {"harm": {"corpus": "h", "harmful": True}}, "proximity": {"center": True},
        "evaluation": {"judge": "keyword"},
    }  # fmt: skip
    assert parse_study(data, "s").proximity.center
