"""Does each axis of a screening tell harm from ordinary data? Measured, said, and no axis chooses unasked that does
not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command_line import undersong_in
from screen_call import screen

from undersong.corpora.manifest import filter_samples, write_manifest
from undersong.corpora.registry import open_corpus
from undersong.proximity.distances import nearest_distances
from undersong.proximity.separation import separation_auc
from undersong.screening.pool import findings, separation
from undersong.screening.pool.separation import check_select_axis, page_summary, separation_lines
from undersong.types import UndersongError

NOTHING = "We found no evidence that its ranking follows harm."


def vectors(path: Path, prefix: str, rows: np.ndarray) -> Path:
    ids = [f"{prefix}{i}" for i in range(len(rows))]
    table = {"id": ids, "embedding": pa.array(rows.astype(np.float32).tolist(), pa.list_(pa.float32()))}
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def corpora(tmp_path: Path) -> dict[str, Path]:
    """Ready vectors: a pool, harm that lies apart, `noise` that is as ordinary data are, and ordinary data."""
    rng = np.random.default_rng(0)
    shift = np.eye(6)[0] * 3
    rows = {
        "pool": rng.normal(size=(40, 6)),
        "harm": rng.normal(size=(30, 6)) + shift,
        "noise": rng.normal(size=(30, 6)),
        "ordinary": rng.normal(size=(60, 6)),
    }
    return {name: vectors(tmp_path / f"{name}.parquet", name[0], side) for name, side in rows.items()}


@pytest.fixture
def words(tmp_path: Path) -> dict[str, Path]:
    """Texts: a pool, harm about robbing, and ordinary requests about singing."""
    nouns = [f"{a}{b}" for a in ("ba", "do", "ki", "lu") for b in ("nk", "me", "sa", "ro", "ti")]
    sides = {
        "pool": [f"sing a {noun} {'or rob it ' * (i % 4)}" for i, noun in enumerate(nouns)],
        "harm": [f"how to rob some {noun} quickly" for noun in nouns],
        "ordinary": [f"please sing about the {noun} {noun}" for noun in nouns],
    }
    for name, texts in sides.items():
        rows = [{"id": f"{name[0]}{i}", "text": text} for i, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {name: tmp_path / f"{name}.jsonl" for name in sides}


def entry(report: Any) -> dict[str, Any]:
    (only,) = report["separation"]
    return only


def test_the_area_is_that_of_the_rankings_own_distance(corpora, tmp_path: Path) -> None:
    harm, ordinary = (np.array(pq.read_table(corpora[name])["embedding"].to_pylist()) for name in ("harm", "ordinary"))

    def area(column: str) -> Any:
        return separation_auc(
            lambda target, heldout: tuple(
                getattr(nearest_distances(side, harm[target], k=3), column) for side in (harm[heldout], ordinary)
            ),
            [f"h{i}" for i in range(30)],
            [f"o{i}" for i in range(60)],
        )

    for score, column in (("nearest", "distance"), ("knn:3", "knn_distance")):
        out = tmp_path / score
        report = screen(corpora["pool"], corpora["harm"], out, score=score, benign_reference=corpora["ordinary"]).report
        measured, wanted = entry(report), area(column)
        assert measured["auc"]["value"] == pytest.approx(wanted.value, abs=1e-6)
        assert measured["auc"]["low"] == pytest.approx(wanted.low, abs=1e-6)
        assert (measured["separates"], measured["n"], measured["reason"]) == (True, [30, 60], None)
        assert measured["ordinary"] == "the benign reference"


def test_intervals_of_several_harm_sets_hold_together(corpora, tmp_path: Path) -> None:
    harm = {"far": corpora["harm"], "noise": corpora["noise"]}
    report = screen(corpora["pool"], harm, tmp_path / "out", benign_reference=corpora["ordinary"]).report
    alone = screen(corpora["pool"], corpora["noise"], tmp_path / "out2", benign_reference=corpora["ordinary"]).report
    by_set = {one["harm_set"]: one for one in report["separation"]}
    assert (by_set["far"]["separates"], by_set["noise"]["separates"]) == (True, False)
    assert by_set["noise"]["auc"]["value"] == entry(alone)["auc"]["value"]
    assert by_set["noise"]["auc"]["low"] < entry(alone)["auc"]["low"]  # 97.5 % each
    lines = separation_lines(report)
    assert lines[0].startswith(
        "The axis internal to far separates held-out harmful requests from the benign reference (AUC 0.9"
    )
    assert lines[1].startswith(
        "The axis internal to noise does not significantly separate held-out harmful requests from the benign reference"
    )
    assert lines[1].endswith(NOTHING)
    assert NOTHING not in lines[0]


def test_an_axis_that_tells_nothing_keeps_nothing_unless_it_is_named(corpora, tmp_path: Path) -> None:
    undersong = undersong_in(tmp_path)
    named = ["screen", "pool.parquet", "--harm", "noise.parquet", "--benign-reference", "ordinary.parquet"]
    code, out, err = undersong(*named, "--out", "ranked")
    assert code == 0, err
    assert (
        "The axis internal does not significantly separate held-out "
        "harmful requests from the benign reference (AUC 0." in out
    )
    assert NOTHING in out
    code, _, err = undersong(*named, "--out", "kept", "--keep", "closest:0.25")
    assert code == 2
    assert "so it should not choose what is kept; give --select-axis internal to keep by it all the same." in err
    assert not (tmp_path / "kept").exists()
    for more in (["closest:0.25", "--select-axis", "internal"], ["random:0.25"]):  # a random draw asks no axis
        code, out, err = undersong(*named, "--out", "kept", "--keep", *more)
        assert code == 0, err
        assert NOTHING in out


def test_the_error_names_the_axes_that_separate() -> None:
    common = {"harm_set": "h", "ordinary": "the benign reference", "n": [9, 9], "reason": None}
    entries = [
        {**common, "axis": "sound", "separates": False, "auc": {"value": 0.5, "low": 0.4, "high": 0.6}},
        {**common, "axis": "words", "separates": True, "auc": {"value": 0.9, "low": 0.8, "high": 1.0}},
        {**common, "axis": "voice", "separates": None, "auc": None, "reason": "no reason"},
    ]
    with pytest.raises(UndersongError, match="give --select-axis words, which does, or --select-axis sound to keep"):
        check_select_axis(entries, "sound", "h")
    check_select_axis(entries, "words", "h")
    check_select_axis(entries, "voice", "h")  # not measured is not shown to tell nothing


def test_axes_of_words_are_measured_with_the_requests_that_ship(words, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(separation, "MAX_ITEMS", 200)
    axes = {"semantic": "tfidf", "letters": "char-ngrams"}
    screened = screen(words["pool"], words["harm"], tmp_path / "out", axes=axes)
    first, second = screened.report["separation"]
    assert (first["ordinary"], first["n"], first["separates"]) == ("shipped:ordinary", [20, 200], True)
    assert second["separates"]
    assert "may differ from your harm set in other ways than harm" in separation_lines(screened.report)[-1]
    monkeypatch.setattr(findings, "measure_separation", lambda *_: [])
    alone = screen(words["pool"], words["harm"], tmp_path / "out2", axes=axes)
    assert alone.to_pandas().equals(screened.to_pandas())  # the ranking is fitted as ever
    monkeypatch.undo()
    centered = screen(words["pool"], words["harm"], tmp_path / "out3", axes={"semantic": "tfidf"}, center=True)
    assert entry(centered.report)["reason"] == "distances are centered on the pool; leave --center out"


def test_what_is_not_measured_is_said_with_the_option_that_measures_it(corpora, words, tmp_path: Path) -> None:
    screened = screen(corpora["pool"], corpora["harm"], tmp_path / "out", keep="closest:0.25")
    assert entry(screened.report)["auc"] is None
    assert separation_lines(screened.report) == [
        "Not measured whether internal tells harm from ordinary data: name ordinary data with --benign-reference."
    ]
    few = tmp_path / "few.jsonl"
    few.write_text("".join(words["harm"].read_text().splitlines(keepends=True)[:3]))
    for options in ({}, {"benign_reference": words["ordinary"]}):
        report = screen(words["pool"], few, tmp_path / "few", axes={"w": "tfidf", "l": "char-ngrams"}, **options).report
        assert separation_lines(report) == [
            "Not measured whether w, l tell harm from ordinary data: a harm set needs 4 different requests or more."
        ]


def test_another_rule_measures_nothing_again(corpora, tmp_path: Path, monkeypatch) -> None:
    options = {"benign_reference": corpora["ordinary"], "store": tmp_path / "store"}
    first = screen(corpora["pool"], corpora["harm"], tmp_path / "out", **options)
    monkeypatch.setattr(findings, "measure_separation", lambda *_: pytest.fail("measured twice"))
    again = screen(corpora["pool"], corpora["harm"], tmp_path / "out2", keep="distant:0.5", seed=3, **options)
    assert again.report["separation"] == first.report["separation"]


def headline(report: Any) -> str:
    return page_summary(report)[0]


def test_the_page_says_what_the_ranking_is_worth_and_how_the_pool_compares(corpora, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    options = {"benign_reference": corpora["ordinary"], "page": page}
    screened = screen(corpora["pool"], corpora["harm"], tmp_path / "out", **options)
    assert page_summary(screened.report)[0] == "Ranked by internal, which tells harm from the benign reference"
    text = page.read_text()
    assert "<h1>Ranked by internal, which tells harm from the benign reference</h1>" in text
    assert "The axis internal separates held-out harmful requests from the benign reference (AUC 0.9" in text
    assert "We found no significant difference between the pool and the benign reference" in text
    nothing = screen(corpora["pool"], corpora["noise"], tmp_path / "out2", **options)
    assert headline(nothing.report) == "No evidence that the ranking by internal follows harm"
    assert "screening score" not in page_summary(nothing.report)[1]  # which means nothing on such an axis
    screen(corpora["pool"], corpora["harm"], tmp_path / "out3", page=page)
    assert "<h1>Ranked by internal, of which it is not measured whether it tells harm" in page.read_text()


@pytest.mark.parametrize(("low", "high", "words"), [(0.1, 0.3, "lies closer to"), (-0.3, -0.1, "lies farther from")])
def test_the_page_says_on_which_side_the_pool_lies(low: float, high: float, words: str) -> None:
    one = {"axis": "a", "harm_set": "h"}
    auc = {"value": 0.9, "low": 0.8, "high": 1.0}
    report = {
        "selected_by": one,
        "separation": [{**one, "ordinary": "the benign reference", "separates": True, "auc": auc, "reason": None}],
        "screening_scores": [{**one, "value": {"value": (low + high) / 2, "low": low, "high": high}}],
    }
    assert f"The pool {words} harm than the benign reference does (screening score" in page_summary(report)[1]


def test_an_axis_that_runs_the_model_is_measured_with_harm_as_samples(tmp_path: Path) -> None:
    """Half of this harm set is benign, which the model refuses no more than ordinary requests; as a target, all items
    of a harm set have the same direction of refusal."""
    benign = filter_samples(open_corpus("organism:pool").samples, {"speaker": ["A"]})
    harmful = open_corpus("organism:reference").samples[::8]
    harm = [*harmful, *benign[12 : 12 + len(harmful)]]
    sides = {"pool": benign[:4], "ordinary": benign[4:12], "harm": harm}
    for name, samples in sides.items():
        write_manifest([replace(sample, audio=None) for sample in samples], tmp_path / f"{name}.parquet")
    report = screen(
        tmp_path / "pool.parquet",
        tmp_path / "harm.parquet",
        tmp_path / "out",
        axes={"leaning": "refusal,modality=text"},
        model="organism:af3",
        system_prompt="you are a helpful assistant",
        benign_reference=tmp_path / "ordinary.parquet",
    ).report
    measured = entry(report)
    assert measured["n"] == [len(harm), 8]
    assert 0.6 < measured["auc"]["value"] < 0.9
