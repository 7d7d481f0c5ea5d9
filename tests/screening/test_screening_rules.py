"""Screening by rule, from any form of corpus and into the forms that trainers read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from screen_call import screen

from undersong.corpora.formats import open_manifest
from undersong.screening.pool.options import parse_columns
from undersong.types import UndersongError

VERBS, OBJECTS = ("paint", "clean", "poison", "rob"), ("candle", "table", "judge", "doctor", "window", "garden")
ROWS = [
    {"key": f"p{i}{j}", "said": f"{verb} a {thing}", "reply": "yes", "topic": thing}
    for i, verb in enumerate(VERBS)
    for j, thing in enumerate(OBJECTS)
]
COLUMNS = {"id": "key", "text": "said", "answer": "reply", "group": "topic"}


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """A pool as CSV with names of its own, and harm as JSONL with ours."""
    with (tmp_path / "pool.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ROWS[0])
        writer.writeheader()
        writer.writerows(ROWS)
    harm = [{"id": "h0", "text": "poison the judge"}, {"id": "h1", "text": "rob the doctor"}]
    (tmp_path / "harm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in harm))
    return tmp_path / "pool.csv", tmp_path / "harm.jsonl"


def test_a_rule_with_a_cap_keeps_the_closest_of_every_topic(sides, tmp_path: Path) -> None:
    plain = screen(*sides, tmp_path / "plain", columns=COLUMNS, keep="closest:6")
    capped = screen(*sides, tmp_path / "capped", columns=COLUMNS, keep="closest:6+group<=1")
    topic = {row["key"]: row["topic"] for row in ROWS}
    assert max(Counter(topic[i] for i in plain.selection.ids).values()) > 1
    assert sorted(topic[i] for i in capped.selection.ids) == sorted(OBJECTS)
    assert capped.selection.rule == "closest:6+group<=1"
    rank = dict(zip(*(capped.tables["semantic"].column(c).to_pylist() for c in ("id", "rank"))))
    for i in capped.selection.ids:
        assert rank[i] == min(rank[j] for j in topic if topic[j] == topic[i])


def test_bands_share_nothing_and_leave_nothing_out(sides, tmp_path: Path) -> None:
    bands = [
        screen(*sides, tmp_path / f"band{i}", columns=COLUMNS, keep=f"band:{i / 4}-{(i + 1) / 4}") for i in range(4)
    ]
    ids = [i for band in bands for i in band.selection.ids]
    assert sorted(ids) == sorted(row["key"] for row in ROWS)


@pytest.mark.parametrize(
    ("form", "name"), [("manifest", "kept.jsonl"), ("messages", "kept.messages.jsonl"), ("kimi", "kept.kimi.jsonl")]
)
def test_what_is_kept_is_written_as_trainers_read_it(sides, tmp_path: Path, form: str, name: str) -> None:
    screened = screen(*sides, tmp_path / "out", columns=COLUMNS, keep="closest:5", output_format=form)
    kept = open_manifest(tmp_path / "out" / name).samples
    assert {sample.id for sample in kept} == set(screened.selection.ids)
    assert {sample.answer for sample in kept} == {"yes"}
    screen(
        *sides, tmp_path / "out", columns=COLUMNS, keep="closest:4", output_format=form
    )  # its own output is replaced
    assert len(open_manifest(tmp_path / "out" / name).samples) == 4


def test_clips_that_were_in_memory_lie_where_the_messages_say(tmp_path: Path) -> None:
    out = tmp_path / "out"
    screen(
        "organism:unseen-benign",
        "organism:unseen-harm",
        out,
        axes={"w": "tfidf"},
        keep="closest:3",
        output_format="sharegpt",
    )
    lines = [json.loads(line) for line in (out / "kept.sharegpt.jsonl").read_text().splitlines()]
    paths = [Path(path) for line in lines for path in line["audios"]]
    assert len(paths) == 3
    assert all(path.is_file() and path.parent == out / "kept-audio" for path in paths)


def test_a_hub_folder_is_written(sides, tmp_path: Path) -> None:
    screen(*sides, tmp_path / "out", columns=COLUMNS, keep="closest:5", output_format="hub")
    assert {s.id for s in open_manifest(tmp_path / "out" / "kept").samples} <= {row["key"] for row in ROWS}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"output_format": "yaml"}, "not written as 'yaml'; take one of manifest, hub, messages, sharegpt, kimi"),
        ({"keep": "nearest:3"}, "closest"),
        ({"keep": "closest:3+color<=1"}, "color"),
        ({"columns": {"texts": "said"}}, "'texts', which is no field"),
    ],
)
def test_what_cannot_be_done_writes_nothing(sides, tmp_path: Path, changed: dict, said: str) -> None:
    with pytest.raises(UndersongError, match=said):
        screen(*sides, tmp_path / "out", **{"columns": COLUMNS, **changed})
    assert not (tmp_path / "out").exists()


def test_columns_are_said_in_pairs() -> None:
    assert parse_columns(["text=said", "id=a.b=c"]) == {"text": "said", "id": "a.b=c"}
    with pytest.raises(UndersongError, match="not FIELD=COLUMN"):
        parse_columns(["text"])


def test_an_output_that_holds_an_input_is_refused(sides, tmp_path: Path) -> None:
    out = tmp_path / "out"
    screen(*sides, out, columns=COLUMNS, keep="closest:6")
    before = (out / "kept.jsonl").read_bytes()
    with pytest.raises(UndersongError, match=r"kept.jsonl is read and lies in .*out, which would be replaced"):
        screen(out / "kept.jsonl", sides[1], out, keep="closest:2")
    assert (out / "kept.jsonl").read_bytes() == before


def test_messages_need_an_answer(tmp_path: Path) -> None:
    rows = [{"id": f"p{i}", "text": f"{verb} a table", "answer": ""} for i, verb in enumerate(VERBS)]
    for name, part in (("pool", rows), ("harm", [{"id": "h", "text": "rob the doctor"}])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    with pytest.raises(UndersongError, match="has an answer to train on"):
        screen(
            tmp_path / "pool.jsonl",
            tmp_path / "harm.jsonl",
            tmp_path / "out",
            keep="closest:2",
            output_format="messages",
        )


def test_ties_at_the_cut_are_told(sides, tmp_path: Path) -> None:
    """Half the pool has no word of harm: which of it is most distant, ids decide."""
    tied = screen(*sides, tmp_path / "tied", columns=COLUMNS, keep="distant:3")
    distances = dict(zip(*(tied.tables["semantic"].column(c).to_pylist() for c in ("id", "distance"))))
    worst = max(distances.values())
    many = sum(value == worst for value in distances.values())
    assert many > 3
    assert tied.report["ties"] == f"{many} items share the score at the cut ({worst:.6g}); 3 of them were taken, by id."
    assert "ties" not in screen(*sides, tmp_path / "all", columns=COLUMNS, keep="closest:1.0").report


@pytest.mark.parametrize(
    ("text", "said"), [("poison the judge", "overlap"), ("", "cannot be used"), ("paint a candle", "overlap")]
)
def test_harmless_speech_is_neither_harm_nor_pool_nor_nothing(sides, tmp_path: Path, text: str, said: str) -> None:
    rows = [{"id": "c0", "text": text}, {"id": "c1", "text": "sing along"}, {"id": "c2", "text": "count sheep"}]
    (tmp_path / "calm.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UndersongError, match=said):
        screen(*sides, tmp_path / "out", columns=COLUMNS, benign_reference=tmp_path / "calm.jsonl")
    with pytest.raises(UndersongError, match="cannot be centered"):
        screen(*sides, tmp_path / "out", columns=COLUMNS, benign_reference=tmp_path / "calm.jsonl", center=True)


def test_a_model_that_no_axis_asks_for_is_an_error(sides, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="No axis uses the model organism:af3; add one"):
        screen(*sides, tmp_path / "out", columns=COLUMNS, model="organism:af3")


def test_shares_may_be_those_of_another_selection(tmp_path: Path) -> None:
    """Distant items with the objects that the closest speak of: what sets the two apart is no longer the object."""
    pair, axes = ("organism:pool", "organism:reference"), {"words": "tfidf"}
    close = screen(*pair, tmp_path / "close", axes=axes, keep="closest:0.1")
    how = {"axes": axes, "keep": "distant:0.1+matched(object)"}
    alike = screen(*pair, tmp_path / "alike", match_selection=tmp_path / "close" / "selection.json", **how)
    plain = screen(*pair, tmp_path / "plain", **how)

    def apart(screened) -> float:
        shares = [next(iter(one.report["selection"].values()))["balance"]["object"] for one in (screened, close)]
        return sum(abs(shares[0][name][0] - shares[1][name][0]) for name in shares[1])

    assert apart(alike) < 0.5 * apart(plain)
    with pytest.raises(UndersongError, match="cannot be read"):
        screen(*pair, tmp_path / "no", match_selection=tmp_path / "nowhere.json", **how)
    with pytest.raises(UndersongError, match="matches nothing to another"):
        screen(
            *pair, tmp_path / "no", axes=axes, match_selection=tmp_path / "close" / "selection.json", keep="distant:6"
        )


def test_several_selections_stand_side_by_side(sides, tmp_path: Path) -> None:
    """Each as if it were alone, in a file of its own, and beside the others."""
    from undersong.statistics.balance import jaccard

    rules = ("closest:5", "distant:5", "random:5", "random:5")
    made = screen(*sides, tmp_path / "out", columns=COLUMNS, keep=rules, seed=3)
    alone = [
        screen(*sides, tmp_path / f"{i}", columns=COLUMNS, keep=rule, seed=seed).selection
        for i, (rule, seed) in enumerate(zip(rules, (3, 3, 3, 4)))
    ]
    assert (made.selection, *made.extra_selections) == tuple(alone)
    for number, one in enumerate(alone):
        name = f"kept-{number + 1}.jsonl" if number else "kept.jsonl"
        assert {sample.id for sample in open_manifest(tmp_path / "out" / name).samples} == set(one.ids)
    report = made.report["selection"]
    assert list(report) == ["closest:5", "distant:5", "random:5", "random:5 seed 4"]
    for label, one in zip(report, alone):
        shared = {other: jaccard(one.ids, two.ids) for other, two in zip(report, alone) if other != label}
        assert report[label]["overlap"] == pytest.approx(shared)
        assert report[label]["seed"] == one.seed
    screen(*sides, tmp_path / "out", columns=COLUMNS, keep="closest:4")  # an earlier screening, replaced as a whole
    assert not list((tmp_path / "out").glob("*-2*"))
    with pytest.raises(UndersongError, match="'distant:5' is given twice; only random"):
        screen(*sides, tmp_path / "no", columns=COLUMNS, keep=["distant:5", "distant:5"])
