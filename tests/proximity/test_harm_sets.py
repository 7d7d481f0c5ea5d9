"""Several harm sets in one table, and what every selection's report says."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from made_tables import facts, table

from undersong.proximity.rules import parse_rule
from undersong.proximity.selection import select_by_kind, select_by_rule, selection_from_json, selection_to_json
from undersong.proximity.selection_report import describe_selection
from undersong.proximity.strata import sample_metadata_table
from undersong.proximity.table import (
    filter_harm_set,
    nearest_margin,
    proximity_table,
    proximity_tables,
    ranking_metadata,
)
from undersong.types import Embeddings, Quarantined, Sample, UndersongError


def embeddings(n: int, prefix: str, seed: int) -> Embeddings:
    rows = 1 + np.random.default_rng(seed).standard_normal((n, 5))
    return Embeddings(tuple(f"{prefix}{i:03d}" for i in range(n)), rows.astype(np.float32), np.zeros(n, np.int64))


@pytest.mark.parametrize("centre", [False, True])
def test_every_set_as_if_it_were_alone(centre: bool) -> None:
    pool, harm = embeddings(60, "p", 0), {"advbench": embeddings(7, "a", 1), "strongreject": embeddings(3, "s", 2)}
    made = proximity_tables("semantic", pool, harm, center=centre)
    assert made.column("harm_set").to_pylist() == ["advbench"] * 60 + ["strongreject"] * 60
    assert ranking_metadata(made)["neighbors"] == {"advbench": 5, "strongreject": 3}
    for name, items in harm.items():
        alone = proximity_table("semantic", name, pool, items, center=centre)
        assert filter_harm_set(made, name).combine_chunks().equals(alone.combine_chunks(), check_metadata=False)
        assert ranking_metadata(filter_harm_set(made, name)) == {**ranking_metadata(alone), "harm_set": name}
        one, other = (select_by_kind(table, "closest", 0.25) for table in (filter_harm_set(made, name), alone))
        assert (one.ids, one.harm_set, other.harm_set) == (other.ids, name, "")
        assert selection_from_json(selection_to_json(one)) == one
        assert filter_harm_set(alone, name).equals(alone, check_metadata=True)
    with pytest.raises(UndersongError, match="2 harm sets"):
        select_by_kind(made, "closest", 0.25)
    with pytest.raises(UndersongError, match="not 'xstest'"):
        filter_harm_set(made, "xstest")


@pytest.mark.parametrize("centre", [False, True])
def test_margin_is_between_the_two_nearest(centre: bool) -> None:
    pool, harm = embeddings(40, "p", 0), embeddings(6, "h", 1)
    mean = pool.vectors.astype(float).mean(axis=0) if centre else 0.0
    unit = [v / np.linalg.norm(v, axis=1, keepdims=True) for v in (pool.vectors - mean, harm.vectors - mean)]
    two = np.sort(1 - unit[0] @ unit[1].T, axis=1)[:, :2]
    made = proximity_tables("a", pool, {"h": harm}, center=centre)
    assert np.allclose(nearest_margin(made), two[:, 1] - two[:, 0], atol=1e-5)
    assert np.isnan(nearest_margin(proximity_tables("a", pool, {"h": embeddings(1, "h", 1)}))).all()


def test_quarantine_names_the_set() -> None:
    pool, harm = embeddings(9, "p", 0), embeddings(3, "h", 1)
    bad = Embeddings(harm.ids, harm.vectors, harm.frames, (Quarantined("h9", "silent audio"),))
    with pytest.raises(UndersongError, match="Harm item h9 cannot be used on axis a to second"):
        proximity_tables("a", pool, {"first": harm, "second": bad})
    with pytest.raises(UndersongError, match="no harm set"):
        proximity_tables("a", pool, {})


def test_facts_of_samples() -> None:
    samples = [Sample("a", text="t", answer="x", speaker="S", seconds=1.5, labels=(("accent", "usa"),)), Sample("b")]
    made = sample_metadata_table(samples)
    assert made.column_names == ["id", "seconds", "speaker", "group", "text", "answer", "accent"]
    assert made.to_pylist()[0]["accent"] == "usa"
    assert set(made.to_pylist()[1].values()) == {"b", None}


def pool(n: int = 40) -> tuple[dict[str, pa.Table], pa.Table]:
    """Speaker B is the closer one; many items each have a label of their own."""
    rng = np.random.default_rng(0)
    speaker = ["AB"[k % 2] for k in range(n)]
    distances = rng.random(n) * 0.5 + 0.5 * np.array([s == "A" for s in speaker])
    tables = {"semantic": table(distances.tolist()), "acoustic": table(rng.random(n).tolist(), "acoustic")}
    ids = tables["semantic"].column("id").to_pylist()
    columns = {"speaker": speaker, "question": [f"q{k}" for k in range(n)], "answer": ["a" * (k + 1) for k in range(n)]}
    seconds = pa.array([None, *range(1, n)], pa.float64())
    return tables, facts(ids, seconds=seconds, constant=["c"] * n, text=["t"] * n, **columns)


def test_report() -> None:
    tables, known = pool()
    made = {
        "closest": select_by_rule(tables["semantic"], parse_rule("closest:10"), metadata=known),
        "again": select_by_rule(tables["semantic"], parse_rule("band:0-0.25"), metadata=known),
        "fair": select_by_rule(tables["semantic"], parse_rule("closest:10+matched(speaker)"), metadata=known),
        "apart": select_by_rule(tables["acoustic"], parse_rule("closest:0.25+within(semantic:4)"), other_tables=tables),
    }
    report = describe_selection(made, tables, known)
    json.dumps(report, allow_nan=False)
    one, fair, apart = report["closest"], report["fair"], report["apart"]
    assert (one["rule"], one["k"], one["hash"]) == ("closest:10", 10, made["closest"].ids_hash)
    assert one["same_as"] == ["again"]
    assert one["overlap"]["again"] == 1
    assert one["closest_on"]["semantic"] == 1 > one["closest_on"]["acoustic"]
    assert one["balance"]["speaker"]["B"][1] == 0.5 < one["balance"]["speaker"]["B"][0]
    assert set(one["balance"]) == {"speaker"}  # 40 questions are summed up
    assert one["imbalance"]["question"]["values"] == 40
    assert one["imbalance"]["question"]["moved"] == pytest.approx(0.75)
    assert one["numbers"]["seconds"]["known"] == 39
    inside = [k for k, id in enumerate(known.column("id").to_pylist()) if id in made["closest"].ids]
    assert one["numbers"]["answer"]["selection"] == pytest.approx(np.mean([k + 1 for k in inside]))
    distances = tables["semantic"].column("distance").to_numpy()
    assert one["scores"]["pool"]["median"] == pytest.approx(np.median(distances))
    assert one["scores"]["kept"]["max"] == pytest.approx(np.sort(distances)[9])
    assert (one["matching"], one["separation"]) == (None, None)
    assert fair["matching"]["speaker"]["before"] != 0 == fair["matching"]["speaker"]["after"]
    assert fair["rule"] == "closest:10+matched(speaker)"
    assert apart["separation"]["other"] == "semantic"
    assert apart["notes"]


def test_report_of_what_is_not_there() -> None:
    tables, known = pool()
    made = {"one": select_by_kind(tables["semantic"], "closest", 0.25)}
    with pytest.raises(UndersongError, match="no proximity table of axis 'semantic'"):
        describe_selection(made, {"acoustic": tables["acoustic"]}, known)
    with pytest.raises(UndersongError, match="has no metadata"):
        describe_selection(made, tables, known.slice(0, 3))
    with pytest.raises(UndersongError, match="selected items are not in the pool"):
        describe_selection(made, {"semantic": tables["semantic"].slice(0, 3)}, known)
