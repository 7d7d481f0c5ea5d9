"""The verdict table: what is read, what is refused and how it is named, and how one set of rows is picked."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.evaluation import verdicts as table
from undersong.evaluation.verdicts import pair_verdicts, read_verdicts, select_verdicts, write_verdicts
from undersong.types import UndersongError, Verdict

ROWS = [
    Verdict("p1", "harm", True, "c1", "audio", "plain", "exact", "jailbreak", 0.5),
    Verdict("p2", "harm", True, "c1", "audio", "plain", "exact", "refusal"),
    Verdict("p3", "near", False, "p3", "audio", "plain", "exact", "answer"),
    Verdict("p1", "harm", True, "c1", "text", "plain", "exact", "error"),
    Verdict("p1", "harm", True, "c1", "audio", "safe", "keyword", "unparsed"),
]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "verdicts.parquet"
    write_verdicts(ROWS, path)
    assert read_verdicts(path) == ROWS
    assert [entry.name for entry in tmp_path.iterdir()] == ["verdicts.parquet"]
    *names, finish = asdict(ROWS[0])
    assert (pq.read_schema(path).names, finish) == (names, "finish")  # a column only where it is known


def test_jsonl_reads_as_parquet_does(tmp_path):
    assert read_verdicts(jsonl(tmp_path / "v.jsonl", [asdict(row) for row in ROWS])) == ROWS


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_only_three_columns_are_needed(tmp_path, form):
    rows = [
        {"prompt_id": "p1", "judge": "mine", "verdict": "jailbreak", "comment": "ignored"},
        {"prompt_id": "p2", "judge": "mine", "verdict": "other", "comment": None},
    ]
    path = tmp_path / f"v.{form}"
    if form == "jsonl":
        jsonl(path, rows)
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    assert read_verdicts(path) == [
        Verdict("p1", "", True, "p1", "", "", "mine", "jailbreak"),
        Verdict("p2", "", True, "p2", "", "", "mine", "other"),
    ]


def test_numeric_ids_blank_lines_and_line_separators_inside_strings(tmp_path):
    path = tmp_path / "v.jsonl"
    row = '{"prompt_id": 7, "judge": "a\u2028b", "verdict": "refusal"}'
    path.write_text(f"\n{row}\r\n\n", encoding="utf-8")
    assert [(verdict.prompt_id, verdict.judge) for verdict in read_verdicts(path)] == [("7", "a\u2028b")]


def test_a_byte_order_mark_is_none_of_the_first_row(tmp_path):
    path = jsonl(tmp_path / "v.jsonl", [asdict(row) for row in ROWS])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_verdicts(path) == ROWS


GOOD = {"prompt_id": "p1", "judge": "exact", "verdict": "refusal"}


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"verdict": "maybe"}, ["row 2", "p2", "'maybe'", "jailbreak, answer"]),
        ({"verdict": None}, ["row 2", "no verdict"]),
        ({"judge": ""}, ["row 2", "no judge"]),
        ({"prompt_id": 1.5}, ["row 2", "a float as prompt_id"]),
        ({"cluster": "c\0"}, ["row 2", "a NUL character in cluster"]),
        ({"harmful": "yes"}, ["row 2", "p2", "a str as harmful"]),
        ({"harmful": False, "verdict": "jailbreak"}, ["row 2", "p2", "benign"]),
        ({"harmful": True, "verdict": "answer"}, ["row 2", "p2", "harmful"]),
        ({"score": "high"}, ["row 2", "a str as score"]),
        ({"score": 10**400}, ["row 2", "score beyond 1e308"]),
        ({"system": ["safe"]}, ["row 2", "system"]),
        ({"prompt_id": "p1"}, ["p1", "two verdicts", "1 and 2"]),
    ],
)
def test_a_bad_row_is_named(tmp_path, bad, named):
    path = jsonl(tmp_path / "v.jsonl", [GOOD, {**GOOD, "prompt_id": "p2", **bad}])
    with pytest.raises(UndersongError) as caught:
        read_verdicts(path)
    assert all(part in str(caught.value) for part in named)


@pytest.mark.parametrize("differs", [{"judge": "b"}, {"modality": "text"}, {"system": "safe"}])
def test_one_prompt_may_have_several_verdicts(tmp_path, differs):
    assert len(read_verdicts(jsonl(tmp_path / "v.jsonl", [GOOD, {**GOOD, **differs}]))) == 2


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("v.jsonl", b"", "no verdicts"),
        ("v.jsonl", b"{]\n", "row 1 is not JSON"),
        ("v.jsonl", b"[" * 100_000, "row 1 is not JSON"),
        ("v.jsonl", b'{"prompt_id": ' + b"9" * 5000 + b"}\n", "row 1 is not JSON"),
        ("v.jsonl", b"[1]\n", "row 1 is not a JSON object"),
        ("v.jsonl", b"\xff\xfe", "UTF-8"),
        ("v.parquet", b"not parquet", "Parquet"),
        ("v.csv", b"prompt_id\n", ".parquet, .jsonl or .eval"),
        (None, b"", "no verdict file"),
    ],
)
def test_a_bad_file_is_named(tmp_path, name, content, named):
    path = tmp_path / (name or "missing.jsonl")
    if name:
        path.write_bytes(content)
    with pytest.raises(UndersongError) as caught:
        read_verdicts(path)
    assert named in str(caught.value)
    assert path.name in str(caught.value)


def test_a_missing_column_is_named(tmp_path):
    pq.write_table(pa.table({"prompt_id": ["p1"], "verdict": ["refusal"]}), tmp_path / "v.parquet")
    with pytest.raises(UndersongError, match="row 1 has no judge"):
        read_verdicts(tmp_path / "v.parquet")


def test_an_empty_parquet_is_an_error(tmp_path):
    pq.write_table(
        pa.table({name: pa.array([], pa.string()) for name in table.REQUIRED_FIELDS}), tmp_path / "v.parquet"
    )
    with pytest.raises(UndersongError, match="no verdicts"):
        read_verdicts(tmp_path / "v.parquet")


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [ROWS[0], ROWS[0]],
        [replace(ROWS[0], verdict="yes")],
        [replace(ROWS[0], harmful=False)],
        [replace(ROWS[2], harmful=True)],
    ],
)
def test_what_cannot_be_read_is_not_written(tmp_path, rows):
    with pytest.raises(UndersongError):
        write_verdicts(rows, tmp_path / "v.parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "v.parquet"
    write_verdicts(ROWS[:1], path)

    def broken(rows, partial, **_options):
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        write_verdicts(ROWS, path)
    monkeypatch.undo()
    assert read_verdicts(path) == ROWS[:1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["v.parquet"]


def test_names_pick_rows():
    assert select_verdicts(ROWS, judge="keyword") == [ROWS[4]]
    assert select_verdicts(ROWS, judge="exact", set="harm", modality="audio") == ROWS[:2]
    assert select_verdicts(ROWS[:2]) == ROWS[:2]


def test_what_is_not_unique_is_listed():
    with pytest.raises(UndersongError) as caught:
        select_verdicts(ROWS, table_name="before.parquet")
    for part in ("before.parquet", "judge: exact, keyword", "set: harm, near", "modality: audio, text", "--system"):
        assert part in str(caught.value)
    with pytest.raises(UndersongError) as caught:
        select_verdicts(ROWS, judge="exact", modality="audio")
    assert "set: harm, near" in str(caught.value)
    assert "--judge" not in str(caught.value)


def test_an_unknown_name_lists_what_is_there():
    with pytest.raises(UndersongError, match=r"no judge 'human'; choose one of exact, keyword"):
        select_verdicts(ROWS, judge="human")
    with pytest.raises(UndersongError, match=r"no modality 'video'.*one of ''"):
        select_verdicts([replace(ROWS[0], modality="")], modality="video")


def test_two_tables_are_paired_by_prompt():
    def said(words, clusters):
        return [
            Verdict(prompt_id, "harm", True, clusters.get(prompt_id, prompt_id), "audio", "plain", "exact", word)
            for prompt_id, word in words.items()
        ]

    before = said({"c": "refusal", "a": "error", "x": "refusal"}, {"c": "one", "a": "one"})
    after = said({"a": "jailbreak", "y": "other", "c": "jailbreak"}, {"y": "two"})
    found = pair_verdicts(before, after)
    assert [(b.prompt_id, a.verdict) for b, a in found.pairs] == [("c", "jailbreak"), ("a", "jailbreak")]
    assert [v.prompt_id for v in (*found.only_before, *found.only_after)] == ["x", "y"]
    rows = [(b and b.verdict, a and a.verdict, cluster) for b, a, cluster in found.by_prompt]
    assert rows == [
        ("error", "jailbreak", "one"),  # a side that names no cluster follows the other
        ("refusal", "jailbreak", "one"),
        ("refusal", None, "x"),
        (None, "other", "two"),
    ]
    with pytest.raises(UndersongError, match="Prompt c is in cluster one before and three after"):
        pair_verdicts(before, said({"c": "other"}, {"c": "three"})).by_prompt  # noqa: B018


def test_how_a_reply_ended_is_kept_and_optional(tmp_path: Path) -> None:
    plain = [Verdict(f"p{i}", "harm", True, f"c{i}", "text", "plain", "exact", "other") for i in range(4)]
    ended = [replace(one, finish=finish) for one, finish in zip(plain, ("stop", "length", "error", None))]
    file = tmp_path / "verdicts.parquet"
    write_verdicts(ended, file)
    assert read_verdicts(file) == ended
    write_verdicts(plain, file)
    assert "finish" not in pq.read_schema(file).names  # as files of earlier versions
    assert read_verdicts(file) == plain


@pytest.mark.parametrize("finish", ["max_tokens", 3, None, ["length"], ""])
def test_the_column_finish_of_another_tool_is_ignored(finish: object, tmp_path: Path) -> None:
    row = {"prompt_id": "a", "judge": "mine", "verdict": "refusal", "finish": finish}
    (tmp_path / "v.jsonl").write_text(json.dumps(row) + "\n")
    (verdict,) = read_verdicts(tmp_path / "v.jsonl")
    assert verdict.finish is None
    assert not verdict.is_cut
