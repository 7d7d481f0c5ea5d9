"""Several harm sets in one screening: every axis is measured to each, and one is selected by."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.compute as pc
import pytest
from screen_call import screen

from undersong.screening.pool.options import parse_harm_sets
from undersong.types import UndersongError

POOL = ["paint a chair", "wash the boat", "rob the quiet doctor", "poison the red lamp", "draw a garden", "sing a song"]
SETS = {"robbery": ["rob the doctor", "rob a bank"], "poisoning": ["poison the judge", "poison a lamp"]}


@pytest.fixture
def corpora(tmp_path: Path) -> tuple[Path, dict[str, Path]]:
    def write(name: str, texts: list[str]) -> Path:
        file = tmp_path / f"{name}.jsonl"
        rows = [{"id": f"{name}{i}", "text": text} for i, text in enumerate(texts)]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return file

    return write("pool", POOL), {name: write(name, texts) for name, texts in SETS.items()}


def test_each_set_has_its_own_ranking(corpora, tmp_path: Path) -> None:
    pool, sets = corpora
    found = {to: screen(pool, sets, tmp_path / to, select_harm_set=to, keep="closest:1").selection for to in SETS}
    assert found["robbery"].ids == ("pool2",)
    assert found["poisoning"].ids == ("pool3",)
    assert {to: one.harm_set for to, one in found.items()} == {to: to for to in SETS}
    first = screen(pool, sets, tmp_path / "first", keep="closest:1")
    assert first.selection == found["robbery"]
    (table,) = first.tables.values()
    assert len(table) == len(POOL) * len(SETS)
    for name in SETS:
        ranks = table.filter(pc.equal(table.column("harm_set"), name)).column("rank").to_pylist()
        assert sorted(ranks) == list(range(1, len(POOL) + 1))


def test_the_report_speaks_of_each(corpora, tmp_path: Path) -> None:
    pool, sets = corpora
    report = screen(pool, sets, tmp_path / "out", keep="closest:2").report
    assert [(one["axis"], one["harm_set"], one["n"]) for one in report["distances"]] == [
        ("semantic", name, len(POOL)) for name in SETS
    ]
    first = {one["harm_set"]: one for one in report["closest"] if one["rank"] == 1}
    assert first["robbery"]["text"] == "rob the quiet doctor"
    assert first["robbery"]["nearest_text"] == "rob the doctor"
    assert first["poisoning"]["nearest_text"] in SETS["poisoning"]
    assert all(one["margin"] is None or one["margin"] >= 0 for one in report["closest"])


def test_a_set_alone_is_what_it_is_among_others(corpora, tmp_path: Path) -> None:
    """The encoder is fitted on all sets together, so this holds for one that is not fitted."""
    pool, sets = corpora
    both = screen(
        pool, sets, tmp_path / "both", select_harm_set="poisoning", keep="distant:3", axes={"a": "char-ngrams"}
    )
    again = screen(pool, dict(reversed(sets.items())), tmp_path / "again", keep="distant:3", axes={"a": "char-ngrams"})
    assert both.selection.ids == again.selection.ids


def test_what_cannot_be_is_refused(corpora, tmp_path: Path) -> None:
    pool, sets = corpora
    with pytest.raises(UndersongError, match=r"no harm set 'robery' to select by; did you mean 'robbery'\?$"):
        screen(pool, sets, tmp_path / "out", select_harm_set="robery")
    sets["poisoning"].write_text(json.dumps({"id": "x", "text": "Paint a chair!"}) + "\n")
    with pytest.raises(UndersongError, match="overlap in 1 pairs"):
        screen(pool, sets, tmp_path / "out")
    with pytest.raises(UndersongError, match="Two harm sets are called 'harm'"):
        parse_harm_sets(["a/harm.jsonl", "b/harm.jsonl"])
    assert parse_harm_sets(["adv=hf:a/b?split=x", "b/harm.jsonl", "hf:c/d?config=e"]) == {
        "adv": "hf:a/b?split=x",
        "harm": "b/harm.jsonl",
        "d?config=e": "hf:c/d?config=e",
    }
