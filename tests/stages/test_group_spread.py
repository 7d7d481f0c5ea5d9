"""Arms alike in diversity: a cap by share of the groups, the same for every kind of one fraction."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.proximity.group_spread import shuffle_ties, spread_over_groups
from undersong.proximity.rules import SelectionRule
from undersong.proximity.selection import select_by_rule
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.store.store import Artifact, Store
from undersong.study.arm_selection import ArmRule, arm_rules, load_selection
from undersong.study.load import load_studies

STUDIES = Path(__file__).parents[2] / "studies"


def facts(sizes: list[int], singles: int = 0) -> pa.Table:
    groups = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)] + [None] * singles
    return pa.table({"id": [f"i{i}" for i in range(len(groups))], "group": pa.array(groups, pa.string())})


@pytest.mark.parametrize(
    ("sizes", "singles", "amount", "share", "rule"),
    [
        ([6] * 108, 0, 0.25, 0.75, "closest:0.25+group<=2"),
        ([6] * 108, 0, 0.5, 0.75, "closest:0.5+group<=4"),
        ([6] * 108, 0, 0.75, 0.75, "closest:0.75"),  # six of one group are all it has
        ([11] * 553, 0, 0.25, 0.75, "closest:0.25+group<=4"),
        ([6] * 108, 0, 100, 1.0, "closest:100+group<=1"),
        ([], 40, 0.25, 0.75, "closest:0.25"),  # no groups: nothing is repeated
        ([9, 1, 1, 1], 4, 0.5, 0.5, "closest:0.5+group<=2"),
    ],
)
def test_the_cap_fills_the_selection_from_that_share_of_the_groups(
    sizes: list[int], singles: int, amount: float | int, share: float, rule: str
) -> None:
    table = facts(sizes, singles)
    capped = spread_over_groups(SelectionRule("closest", amount), table, table.column("id").to_pylist(), share)
    assert str(capped) == rule


def table_by_words(pool) -> pa.Table:
    """Distances that put all voices of one request side by side."""
    from undersong.proximity.table import METADATA_KEY

    ordered = sorted(pool.samples, key=lambda sample: (sample.group, sample.id))
    columns = {
        "id": [sample.id for sample in ordered],
        "axis": ["words"] * len(ordered),
        "harm_set": ["h"] * len(ordered),
        "distance": pa.array([i / len(ordered) for i in range(len(ordered))], pa.float32()),
        "rank": list(range(1, len(ordered) + 1)),
    }
    return pa.table(columns).replace_schema_metadata({METADATA_KEY: '{"score": "nearest", "centered": false}'})


def test_arms_of_all_kinds_reach_as_many_groups(tmp_path: Path) -> None:
    ctx = RunContext(Store(tmp_path))
    pool = load_corpus(ctx, "organism:pool", decode=False)
    groups = {sample.id: sample.group for sample in pool.samples}

    def make(draft) -> None:
        pq.write_table(table_by_words(pool), draft.path / "proximity.parquet")

    table: Artifact = ctx.store.get_or_make("proximity", 1, {}, {}, make)

    def counts(kind: str, spread: float | None) -> Counter:
        rule = ArmRule(kind, "words", SelectionRule(kind, 0.25), "h", True, group_spread=spread)
        selection = load_selection(ctx, pool, {("words", "h"): table}, rule, 0)
        assert selection.k == 162
        assert selection.rule == ("" if spread is None else f"{kind}:0.25+group<=2")
        return Counter(groups[id] for id in selection.ids)

    assert len(counts("closest", None)) == 27  # all six voices of each
    for kind in ("closest", "distant", "random"):
        spread = counts(kind, 0.75)
        assert max(spread.values()) <= 2
        assert len(spread) >= 81


def test_ties_favor_no_voice(tmp_path: Path) -> None:
    """All samples of a group are equally near, and their ids end with the voice: by id, A and B are kept of each."""
    ids = [f"g{group:03d}-{voice}" for group in range(60) for voice in "ABCDEF"]
    metadata = pa.table({"id": ids, "group": [id[:4] for id in ids]})
    columns = {"id": ids, "axis": ["a"] * len(ids), "harm_set": ["h"] * len(ids)}
    columns |= {"distance": pa.array([int(id[1:4]) / 60 for id in ids], pa.float32())}
    from undersong.proximity.table import METADATA_KEY

    table = pa.table(columns | {"rank": list(range(1, len(ids) + 1))})
    table = table.replace_schema_metadata({METADATA_KEY: '{"score": "nearest", "centered": false}'})
    rule = spread_over_groups(SelectionRule("closest", 0.25), metadata, ids, 0.75)
    by_id, by_hash = (
        Counter(id[-1] for id in select_by_rule(ranked, rule, metadata=metadata).ids)
        for ranked in (table, shuffle_ties(table))
    )
    assert str(rule).endswith("+group<=2")
    assert by_id == {"A": 45, "B": 45}
    assert set(by_hash) == set("ABCDEF")
    assert max(by_hash.values()) < 30
    order = shuffle_ties(table)
    assert sorted(order.column("rank").to_pylist()) == list(range(1, len(ids) + 1))
    ranked = sorted(zip(order.column("rank").to_pylist(), order.column("distance").to_pylist()))
    assert ranked == sorted(ranked, key=lambda pair: pair[1])  # only ties moved


@pytest.mark.parametrize("file", ["organism/sdqa", "paper/sdqa", "demo", "demo_architectures", "demo_fractions"])
def test_the_published_studies_have_it(file: str) -> None:
    for study in load_studies(STUDIES / f"{file}.yaml").studies:
        assert {rule.group_spread for rule in arm_rules(study)} == {0.75}
