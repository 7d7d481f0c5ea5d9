"""Tables and lines: delimiters, encodings, allowed folders; a fault is named with its line, memory stays small."""

import csv
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora.formats import open_manifest
from undersong.corpora.tables import csv_rows, json_rows
from undersong.types import Sample, UndersongError


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def test_csv_and_its_relatives(tmp_path: Path) -> None:
    rows = [["id", "audio", "text", "seconds", "answers", "accent"]]
    rows += [["001", "a.wav", 'he said "hi",\nthen left', "1.5", '["a", "b"]', ""], ["002", "", "x", "", "", "nga"]]
    expected = (
        Sample("001", str(tmp_path / "a.wav"), 'he said "hi",\nthen left', answers=("a", "b"), seconds=1.5),
        Sample("002", text="x", labels=(("accent", "nga"),)),
    )
    for delimiter in ",;\t":
        for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-32"):
            path = tmp_path / "table"
            with path.open("w", encoding=encoding, newline="") as file:
                csv.writer(file, delimiter=delimiter).writerows(rows)
            manifest = open_manifest(path)
            assert manifest.samples == expected
            assert manifest.format == "csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,text\na,x\nb\n", "Line 3 .* 1 fields and the header 2"),
        ("id,text\na,x,y\n", "Line 2 .* 3 fields"),
        ('id,text\na,"x\ny"\nb,"z\n', "Line 4 .* cannot be read as CSV"),
        ("id,id\na,b\n", "Line 1 .* names a column twice"),
        ("id,text\na,x\na,y\n", "Line 3 .* repeats the id 'a'"),
        ("id,seconds\na,long\n", "Line 2 .* 'long'.*number"),
        ("id,seconds\na,nan\n", "Line 2 .* seconds is nan"),
        ("id,answers\na,x\n", "Line 2 .*JSON list"),
        ("id,text\n", "holds no items"),
        ("", "holds no items"),
        (" \n\n", "holds no items"),
    ],
)
def test_a_fault_in_a_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(UndersongError, match=message) as caught:
        open_manifest(tmp_path / "bad.csv")
    assert "bad" in str(caught.value)


@settings(derandomize=True)
@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1),
            min_size=2,
            max_size=2,
        ),
        min_size=1,
        max_size=4,
    )
)
def test_csv_rows_are_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[list[str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["a", "b"], *rows])
    assert [list(row.values()) for _, row in csv_rows(path)] == rows


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_another_encoding_is_named_with_its_line_and_not_guessed(tmp_path: Path, name: str) -> None:
    texts = {"a.jsonl": '{"id": "a"}\n{"id": "café"}\n', "a.csv": "id,text\na,café\n"}
    path = tmp_path / name
    path.write_bytes(texts[name].encode("latin-1"))
    with pytest.raises(UndersongError, match=r"Line 2 of .* not UTF-8 \(byte 0xe9"):
        open_manifest(path)
    path.write_bytes(texts[name].encode("utf-16-le"))
    with pytest.raises(UndersongError, match=r"Line 1 .*UTF-16 without a mark"):
        open_manifest(path)
    path.write_bytes(b"\xff\xfe" + texts[name].encode("utf-16-le") + b"\x00\xd8")
    with pytest.raises(UndersongError, match=r"Line 3 .* mark says utf-16"):
        open_manifest(path)
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        path.write_text(texts[name], encoding=encoding)
        assert "café" in (open_manifest(path).samples[-1].id, open_manifest(path).samples[-1].text)


def test_paths_may_not_lead_out_of_the_root(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.wav").write_bytes(b"x")
    (inside / "link.wav").symlink_to(tmp_path / "secret.wav")
    (inside / "loop.wav").symlink_to(inside / "loop.wav")
    (inside / "fine.wav").write_bytes(b"x")
    path = inside / "m.jsonl"
    write(path, {"id": "a", "audio": "fine.wav"}, {"id": "b", "audio": "loop.wav"}, {"id": "c", "text": "x"})
    assert len(open_manifest(path, root=inside).samples) == 3
    for wrong in (
        "../secret.wav",
        "../inside-too/a.wav",
        "link.wav",
        "/etc/hostname",
        str(tmp_path / "secret.wav"),
        "a\0b",
    ):
        write(path, {"id": "a", "audio": "fine.wav"}, {"id": "b", "audio": wrong})
        assert len(open_manifest(path).samples) == 2
        with pytest.raises(UndersongError, match=r"Line 2 of .* outside .*inside"):
            open_manifest(path, root=inside)


@pytest.mark.parametrize(
    ("count", "bad"), [(100_000, 77_777), pytest.param(1_000_000, 999_999, marks=pytest.mark.slow)]
)
def test_one_bad_line_among_many_is_named_and_memory_stays_small(tmp_path: Path, count: int, bad: int) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for number in range(1, count + 1):
            file.write("{oops\n" if number == bad else f'{{"id": "{number}", "text": "some words to fill the line"}}\n')
    with pytest.raises(UndersongError, match=f"Line {bad} of"):
        open_manifest(path)
    short = tmp_path / "short.jsonl"
    short.write_text("".join(path.read_text().splitlines(keepends=True)[:10_000]))
    tracemalloc.start()  # slow, so over fewer lines: of half a megabyte a tenth is held at a time
    assert sum(1 for _ in json_rows(short)) == 10_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < short.stat().st_size / 10 * 2


def test_an_error_names_the_file_that_was_read_and_not_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("id,text\n")
    (tmp_path / "pool.aaa").write_text("something else")
    (tmp_path / "pool.zzz").write_text("something else")
    with pytest.raises(UndersongError, match=r"pool\.csv holds no items"):
        open_manifest(tmp_path / "pool.csv")
