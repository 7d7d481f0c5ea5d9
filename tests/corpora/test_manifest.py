"""Manifests: what is written is what is read, and a fault is named with its place."""

import json
import string
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora.manifest import filter_samples, read_manifest, write_corpus, write_manifest
from undersong.corpora.rows import FIELDS
from undersong.types import Quarantined, Sample, UndersongError

fixed = settings(deadline=None, derandomize=True, max_examples=60)
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), min_size=1)
names = text.filter(lambda name: name not in FIELDS and name != "embedding")
paths = st.text(string.ascii_letters + "äß ☃", min_size=1).map(lambda name: f"/corpus/{name}.wav")


def samples(audio: st.SearchStrategy) -> st.SearchStrategy[list[Sample]]:
    one = st.builds(
        Sample,
        id=ids,
        audio=audio,
        text=st.none() | text,
        answer=st.none() | text,
        answers=st.lists(text, max_size=3).map(tuple),
        speaker=st.none() | text,
        group=st.none() | text,
        seconds=st.none() | st.floats(0, 1e6),
        pcm_hash=st.none() | text,
        labels=st.dictionaries(names, text, max_size=3).map(lambda labels: tuple(sorted(labels.items()))),
    )
    return st.lists(one, min_size=1, max_size=5, unique_by=lambda sample: sample.id)


@fixed
@given(written=samples(st.none() | paths))
def test_jsonl_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("round") / "corpus.jsonl"
    write_manifest(written, path)
    assert read_manifest(path).samples == tuple(written)


@fixed
@given(written=samples(st.none() | paths) | samples(st.none() | st.binary()) | samples(paths | st.binary()))
def test_parquet_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Sample]) -> None:
    path = tmp_path_factory.mktemp("round") / "corpus.parquet"
    write_manifest(written, path)
    assert read_manifest(path).samples == tuple(written)
    first = path.read_bytes()
    write_manifest(read_manifest(path).samples, path)
    assert path.read_bytes() == first


def test_a_corpus_keeps_its_quarantine_and_the_documented_columns(tmp_path: Path) -> None:
    items = [Sample("a", audio=b"OggS", text="hi", labels=(("accent", "nga"),)), Sample("ñ☃", text="ho")]
    gone = [Quarantined("b", "the audio file is empty")]
    write_corpus(items, gone, tmp_path)
    for ref in (tmp_path, tmp_path / "corpus.parquet"):
        manifest = read_manifest(ref)
        assert manifest.samples == tuple(items)
        assert manifest.quarantined == tuple(gone)
        assert manifest.root == tmp_path
    columns = pq.read_schema(tmp_path / "corpus.parquet").names
    documented = ["id", "audio", "text", "answer", "speaker", "group", "seconds", "pcm_hash"]
    assert [name for name in columns if name in documented] == documented
    assert pq.read_schema(tmp_path / "quarantine.parquet").names == ["id", "reason"]
    write_corpus(items, [], tmp_path)
    assert read_manifest(tmp_path).quarantined == ()


def write_lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_relative_audio_starts_at_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    rows = [{"id": "a", "audio": "clips/a.wav"}, {"id": "b", "audio": "/abs/b.wav"}, {"id": "c", "audio": "../c.wav"}]
    path = write_lines(tmp_path / "sub" / "m.jsonl", *rows)
    monkeypatch.chdir(tmp_path)
    for ref in (path, "sub/m.jsonl"):
        read = [sample.audio for sample in read_manifest(ref).samples]
        assert read == [f"{tmp_path}/sub/clips/a.wav", "/abs/b.wav", f"{tmp_path}/sub/../c.wav"]
    write_manifest(read_manifest(path).samples, tmp_path / "sub" / "again.jsonl")
    assert json.loads((tmp_path / "sub" / "again.jsonl").read_text().splitlines()[0])["audio"] == "clips/a.wav"
    write_manifest([Sample("d", audio="sub/d.wav")], tmp_path / "elsewhere.parquet")  # relative to where we are
    assert read_manifest("elsewhere.parquet").samples[0].audio == f"{tmp_path}/sub/d.wav"


def test_a_corpus_with_its_audio_can_move(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    write_manifest([Sample("a", audio=str(tmp_path / "old" / "a.wav"))], tmp_path / "old" / "m.jsonl")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_manifest(tmp_path / "new" / "m.jsonl").samples[0].audio == str(tmp_path / "new" / "a.wav")


def test_further_columns_are_labels(tmp_path: Path) -> None:
    row = {"id": 7, "text": "x", "z": "s", "n": 1, "f": 0.5, "yes": True, "none": None, "deep": {"b": [1], "a": "é"}}
    (sample,) = read_manifest(write_lines(tmp_path / "m.jsonl", row)).samples
    assert sample.id == "7"
    labels = {"deep": '{"a": "é", "b": [1]}', "f": "0.5", "n": "1", "yes": "true", "z": "s"}
    assert sample.labels == tuple(labels.items())
    table = pa.table({"id": [1, 2], "text": ["a", "b"], "n": [1, None], "flag": [True, False]})
    pq.write_table(table, tmp_path / "m.parquet")
    first, second = read_manifest(tmp_path / "m.parquet").samples
    assert (first.id, first.labels) == ("1", (("flag", "true"), ("n", "1")))
    assert second.labels == (("flag", "false"),)


def test_the_layout_of_hugging_face_is_read(tmp_path: Path) -> None:
    audio = [{"bytes": b"x", "path": "a.wav"}, {"bytes": None, "path": "b.wav"}, None]
    pq.write_table(pa.table({"id": ["a", "b", "c"], "audio": audio}), tmp_path / "m.parquet")
    assert [s.audio for s in read_manifest(tmp_path / "m.parquet").samples] == [b"x", f"{tmp_path}/b.wav", None]


def test_blank_lines_a_mark_and_odd_separators_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes('\ufeff{"id": "a", "text": "one\u2028two"}\r\n\n  \n{"id": "b"}\n'.encode())
    assert [(s.id, s.text) for s in read_manifest(path).samples] == [("a", "one\u2028two"), ("b", None)]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"id": "a"}, {"id": "b"}, {"id": "a"}], "Line 3 .* repeats the id 'a'"),
        ([{"id": 1}, {"id": "1"}], "Line 2 .* repeats the id '1'"),
        ([{"id": "a"}, {"text": "x"}], "Line 2 .* no usable id"),
        ([{"id": ""}], "Line 1 .* no usable id"),
        ([{"id": "a\nb"}], "Line 1 .* no usable id"),
        ([{"id": 1.5}], "Line 1 .* id is 1.5"),
        ([{"id": "a", "text": "x\0"}], "Line 1 .* text holds a NUL character"),
        ([{"id": "a"}, "", ["a"]], "Line 3 .* not an object"),
        ([{"id": "a"}, '"text"'], "Line 2 .* not an object"),
        ([{"id": "a"}, '{"id": "b"'], "Line 2 .* not one JSON object"),
        (['{"id": "a"} {"id": "b"}'], "Line 1 .* not one JSON object"),
        (['{"id": "a", "text": "x", "text": "y"}'], "repeated"),
        (['{"id": "a", "seconds": NaN}'], "NaN is not JSON"),
        (["[" * 100_000], "Line 1"),
        ([{"id": "a", "seconds": -1}], "seconds is -1"),
        ([{"id": "a", "seconds": "long"}], "seconds is 'long'"),
        ([{"id": "a", "audio": ""}], "audio is ''"),
        ([{"id": "a", "audio": 3}], "audio is 3"),
        ([{"id": "a", "text": ["x"]}], "text is"),
        ([{"id": "a", "answers": "x"}], "answers is 'x'"),
        ([{"id": "a", "answers": ["x", None]}], "answers holds null"),
        (['{"id": "\\ud800"}'], "half a character"),
        ([], "holds no items"),
        (["", " "], "holds no items"),
    ],
)
def test_a_fault_is_named_with_its_line(tmp_path: Path, rows: list[object], message: str) -> None:
    with pytest.raises(UndersongError, match=message) as caught:
        read_manifest(write_lines(tmp_path / "bad.jsonl", *rows))
    assert "bad.jsonl" in str(caught.value)
    assert len(str(caught.value)) < 400


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(b'{"id": "a"}\n{"id": "\xff"}\n')
    with pytest.raises(UndersongError, match="Line 2"):
        read_manifest(tmp_path / "bad.jsonl")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"text": ["a"]}), "needs a column `id`"),
        (pa.table({"id": ["a", "b", "a"]}), "Row 3 .* repeats the id 'a'"),
        (pa.table({"id": ["a", None]}), "Row 2 .* no usable id"),
        (pa.table({"id": pa.array([], pa.string())}), "holds no items"),
        (pa.table([["a"], ["b"], ["c"]], names=["id", "text", "text"]), "every name once"),
        (pa.table({"id": ["a"], "embedding": [[0.5]]}), "holds embeddings"),
        (pa.table({"id": ["a"], "blob": [b"x"]}), "'blob' holds bytes"),
        (pa.table({"id": ["a"], "answers": [[b"x"]]}), "answers is"),
        (pa.table({"id": ["a", "b"], "topic": ["x", "\0\0"]}), "Row 2 .* topic holds a NUL character"),
        (pa.table({"id": ["a"], "seconds": [float("inf")]}), "Row 1 .* seconds is inf"),
        (pa.table({"id": ["a"], "text": pa.array([b"\xff"]).cast(pa.binary()).view(pa.string())}), "as Parquet"),
    ],
)
def test_a_fault_in_parquet_is_named_with_its_row(tmp_path: Path, table: pa.Table, message: str) -> None:
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(UndersongError, match=message) as caught:
        read_manifest(tmp_path / "bad.parquet")
    assert "bad.parquet" in str(caught.value)


def test_a_changed_page_of_a_manifest_is_refused_where_it_has_a_checksum(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b"], "text": ["paint the chair", "fold the boat"]})
    for has_checksums in (True, False):
        pq.write_table(table, file := tmp_path / "m.parquet", write_page_checksum=has_checksums, compression="none")
        file.write_bytes(file.read_bytes().replace(b"paint", b"faint"))
        if has_checksums:
            with pytest.raises(UndersongError, match=r"cannot be read as Parquet \(.*CRC checksum verification failed"):
                read_manifest(file)
        else:
            assert read_manifest(file).samples[0].text == "faint the chair"  # nobody can see this


def test_files_that_are_no_manifests(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("id\na\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and then nothing")
    (tmp_path / "folder").mkdir()
    faults = {
        "missing.jsonl": "no manifest",
        "pool.csv": "neither",
        "cut.parquet": "as Parquet",
        "folder": "no manifest",
    }
    for name, message in faults.items():
        with pytest.raises(UndersongError, match=message) as caught:
            read_manifest(tmp_path / name)
        assert name in str(caught.value)


def test_a_refused_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl"
    write_manifest([Sample("a", text="x")], path)
    before = path.read_bytes()
    with pytest.raises(UndersongError, match=r"'b' holds audio as bytes.*\.parquet"):
        write_manifest([Sample("a"), Sample("b", audio=b"x")], path)
    with pytest.raises(UndersongError, match=r"neither \.jsonl nor \.parquet"):
        write_manifest([Sample("a")], tmp_path / "kept.csv")
    for labels in ((("x", "1"), ("x", "2")), (("speaker", "A"),)):
        with pytest.raises(UndersongError, match="share a column name"):
            write_manifest([Sample("c", labels=labels)], path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["kept.jsonl"]


POOL = (
    Sample("1", text="x", speaker="A", group="g", labels=(("quadrant", "far"),)),
    Sample("2", text="x", speaker="B", group="g", labels=(("quadrant", "near_verb"),)),
    Sample("3", text="x", speaker="C", labels=(("quadrant", "far"), ("take", "2"))),
)


def test_select_by_any_column() -> None:
    def chosen(**where: str | list[str]) -> list[str]:
        return [sample.id for sample in filter_samples(POOL, where)]

    assert filter_samples(POOL, {}) == POOL
    assert chosen(speaker="A") == ["1"]
    assert chosen(speaker=["C", "A"]) == ["1", "3"]
    assert chosen(quadrant="far", speaker=["B", "C"]) == ["3"]
    assert chosen(take="2") == ["3"]
    assert chosen(group=["g"]) == ["1", "2"]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"quadrnt": "far"}, "did you mean 'quadrant'"),
        ({"xyz": "far"}, "choose from group, quadrant, speaker, take"),
        ({"quadrant": "near_vreb"}, "did you mean 'near_verb'"),
        ({"speaker": ["A", "Z"]}, "'Z'; choose from A, B, C"),
        ({"speaker": "A", "quadrant": "near_verb"}, "No sample is left"),
        ({"speaker": []}, "No sample is left"),
    ],
)
def test_select_never_silently_takes_nothing(where: dict[str, str | list[str]], message: str) -> None:
    with pytest.raises(UndersongError, match=message):
        filter_samples(POOL, where)
