"""Fault 16: the help said "distance >= threshold" where the code kept `<=`, and one filter had no distant mode."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.encoders.registry import make_encoder
from undersong.proximity.rules import parse_rule
from undersong.proximity.selection import select_by_rule
from undersong.proximity.table import proximity_table, ranking_scores


@pytest.fixture(scope="module")
def table(benign, harmful):
    encoder = make_encoder("logmel", fit=())
    return proximity_table("acoustic", "harm", encoder.encode(benign), encoder.encode(harmful))


def test_what_is_called_distant_is(table) -> None:
    values = dict(zip(table.column("id").to_pylist(), ranking_scores(table).tolist()))
    closest, distant = (select_by_rule(table, parse_rule(f"{kind}:0.25")).ids for kind in ("closest", "distant"))
    assert max(values[i] for i in closest) < min(values[i] for i in distant)


def test_thresholds_say_and_keep_the_same(table) -> None:
    values = ranking_scores(table).astype(float)
    cut = float(np.median(values))
    kept = {word: select_by_rule(table, parse_rule(f"{word}:{cut:.6f}")).ids for word in ("below", "above")}
    by_id = dict(zip(table.column("id").to_pylist(), values.tolist()))
    assert all(by_id[i] < cut + 1e-6 for i in kept["below"])
    assert all(by_id[i] > cut - 1e-6 for i in kept["above"])
    assert not set(kept["below"]) & set(kept["above"])
