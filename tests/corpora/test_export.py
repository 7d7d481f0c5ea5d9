"""What is exported is read back as it was, by us and by `datasets`."""

import json
import string
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from undersong.corpora import export
from undersong.corpora.export import (
    CHAT_ROW_BUILDERS,
    write_chats,
    write_hub_folder,
    write_samples,
)
from undersong.corpora.formats import open_manifest
from undersong.corpora.rows import FIELDS
from undersong.types import Sample, UndersongError

Sound = Callable[..., bytes]
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")).filter(
    lambda value: "<audio>" not in value
)
ids = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), min_size=1)
names = st.text(string.ascii_lowercase, min_size=1).filter(lambda name: name not in FIELDS and name != "embedding")


def samples(audio: st.SearchStrategy) -> st.SearchStrategy[list[Sample]]:
    one = st.builds(
        Sample,
        id=ids,
        audio=audio,
        text=st.text("ab c", min_size=1).filter(str.strip),
        answer=text.filter(str.strip),
        answers=st.lists(text, max_size=3).map(tuple),
        speaker=st.none() | text,
        group=st.none() | text,
        seconds=st.none() | st.floats(0, 1e6),
        pcm_hash=st.none() | text,
        labels=st.dictionaries(names | st.just("instruction") | st.just("system"), text, max_size=3).map(
            lambda labels: tuple(sorted(labels.items()))
        ),
    )
    return st.lists(one, min_size=1, max_size=4, unique_by=lambda sample: sample.id)


@settings(derandomize=True, max_examples=40)
@given(
    written=samples(st.none() | st.sampled_from(["/corpus/ä b.wav", "/corpus/c.wav"])),
    asked=st.sampled_from(["", "Answer."]),
    form=st.sampled_from([*CHAT_ROW_BUILDERS]),
)
def test_conversations_round_trip(
    tmp_path_factory: pytest.TempPathFactory, written: list[Sample], asked: str, form: str
) -> None:
    path = tmp_path_factory.mktemp("round") / f"kept.{form}.jsonl"
    if form == "kimi" and any(dict(sample.labels).get("system") for sample in written):
        with pytest.raises(UndersongError, match="has a system text, which Kimi-Audio's conversations do not hold"):
            write_chats(written, path, form, asked)
        return
    write_samples(written, path, asked)
    manifest = open_manifest(path)
    assert manifest.format == form
    assert manifest.samples == tuple(written)


def test_kimis_form_is_that_of_its_own_fine_tuning(tmp_path: Path) -> None:
    spoken = Sample("a", "/c/a.wav", "two and two", "four", labels=(("instruction", "Answer."),))
    write_samples([spoken], tmp_path / "kept.kimi.jsonl")
    row = json.loads((tmp_path / "kept.kimi.jsonl").read_text())
    assert row["task_type"] == "understanding"
    assert row["conversation"] == [
        {"role": "user", "message_type": "text", "content": "Answer."},
        {"role": "user", "message_type": "audio", "content": "/c/a.wav"},
        {"role": "assistant", "message_type": "text", "content": "four"},
    ]


def test_messages_as_trainers_read_them(tmp_path: Path, sound: Sound) -> None:
    audio, path = sound(), tmp_path / "kept.messages.jsonl"
    spoken = Sample("a", audio, "two and two", "four", labels=(("system", "Be brief."), ("label", "x")))
    own = Sample("b", str(tmp_path / "b.wav"), answer="five", labels=(("instruction", "Repeat."),))
    write_samples([spoken, own, Sample("c", text="six?", answer="six")], path, "Answer.")
    first, second, third = [json.loads(line) for line in path.read_text().splitlines()]
    assert [turn["content"] for turn in first["messages"]] == ["Be brief.", "<audio>\nAnswer.", "four"]
    assert [turn["role"] for turn in first["messages"]] == ["system", "user", "assistant"]
    assert second["messages"][0]["content"] == "<audio>\nRepeat."
    assert third["messages"][0]["content"] == "six?"
    assert [row["audios"] for row in (second, third)] == [[f"{tmp_path}/b.wav"], []]
    assert "two and two" not in json.dumps(first["messages"])  # the transcript would give away what is to be heard
    assert "label" not in first  # to ms-swift that column is a class
    assert {row.keys() == {"messages", "audios", "id", "undersong"} for row in (first, second, third)} == {True}
    (stored,) = first["audios"]
    assert stored.startswith(f"{tmp_path}/kept-audio/")
    assert stored.endswith(".wav")
    assert Path(stored).read_bytes() == audio
    assert all(row["messages"][-1]["role"] == "assistant" for row in (first, second, third))


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample("a", "x.wav"), "'a' has no answer"),
        (Sample("a", answer="x"), "'a' has no audio and no text"),
        (Sample("a", text="say <audio>", answer="x"), "'a' holds the placeholder"),
        (Sample("a", "x.wav", answer="<audio>"), "'a' holds the placeholder"),
    ],
)
def test_an_item_that_cannot_be_trained_on_is_named_and_nothing_written(
    tmp_path: Path, sample: Sample, message: str
) -> None:
    with pytest.raises(UndersongError, match=message):
        write_chats([Sample("ok", b"RIFF", answer="y"), sample], tmp_path / "m.messages.jsonl", "messages")
    assert list(tmp_path.iterdir()) == []


@settings(derandomize=True, max_examples=30)
@given(written=samples(st.none() | st.binary(min_size=1)))
def test_a_parquet_folder_round_trip(tmp_path_factory: pytest.TempPathFactory, written: list[Sample]) -> None:
    folder = tmp_path_factory.mktemp("round") / "kept"
    write_samples(written, folder)
    manifest = open_manifest(folder)
    assert manifest.format == "parquet-folder"
    assert manifest.samples == tuple(written)


def test_a_parquet_folder_holds_the_files_in_shards(
    tmp_path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "ROW_GROUP_BYTES", 1)
    monkeypatch.setattr(export, "SHARD_BYTES", 2 * len(sound()))
    (tmp_path / "a.wav").write_bytes(sound())
    kept = [Sample(f"{i}", str(tmp_path / "a.wav"), f"text {i}") for i in range(5)]
    for _ in range(2):  # writing again leaves no shard of before
        write_hub_folder(kept, tmp_path / "out", split="kept")
    names = [path.name for path in sorted((tmp_path / "out" / "data").iterdir())]
    assert names == [f"kept-{i:05d}-of-00003.parquet" for i in range(3)]
    assert [pq.read_metadata(tmp_path / "out" / "data" / name).num_rows for name in names] == [2, 2, 1]
    read = open_manifest(tmp_path / "out").samples
    assert [(s.id, s.text, s.audio) for s in read] == [(s.id, s.text, sound()) for s in kept]
    (tmp_path / "out" / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UndersongError, match="several splits"):
        open_manifest(tmp_path / "out")


def test_what_cannot_be_exported_leaves_the_old_folder(tmp_path: Path) -> None:
    write_hub_folder([Sample("a", text="x")], tmp_path / "out")
    for kept, message in (([Sample("b", "missing.wav")], "'b'.*No such file"), ([], "no items")):
        with pytest.raises(UndersongError, match=message):
            write_hub_folder(kept, tmp_path / "out")
    with pytest.raises(UndersongError, match="shares its name"):
        write_hub_folder([Sample("b", text="x", labels=(("speaker", "x"),))], tmp_path / "out")
    with pytest.raises(UndersongError, match="choose one of these names"):
        write_samples([], tmp_path / "x.csv")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UndersongError, match="something else, which would be lost"):
        write_hub_folder([Sample("b", text="x")], tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    (tmp_path / "out" / "notes.txt").unlink()
    assert [sample.id for sample in open_manifest(tmp_path / "out").samples] == ["a"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_datasets_reads_the_folder_unchanged(tmp_path: Path, sound: Sound, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    kept = [
        Sample("a", sound(format="FLAC"), "one", "eins", ("eins", "ein"), "s", "g", 0.5, "h", (("accent", "nga"),)),
        Sample("b", sound(hertz=300.0), "two"),
    ]
    write_hub_folder(kept, tmp_path / "out")
    (out,) = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache")).values()
    assert isinstance(out.features["audio"], datasets.Audio)
    assert out.split == "train"
    raw = out.cast_column("audio", datasets.Audio(decode=False))
    assert [row["audio"]["bytes"] for row in raw] == [sample.audio for sample in kept]
    assert raw[0] | {"audio": None} == {
        **dict.fromkeys(FIELDS),
        **{"id": "a", "text": "one", "answer": "eins", "answers": ["eins", "ein"], "speaker": "s", "group": "g"},
        **{"seconds": 0.5, "pcm_hash": "h", "accent": "nga"},
    }


def test_a_data_set_is_streamed_into_a_manifest(tmp_path: Path, sound: Sound) -> None:
    datasets = pytest.importorskip("datasets")
    clips = [{"bytes": sound(hertz=hz), "path": "a.wav"} for hz in (300.0, 400.0)]
    features = {"question": {"dtype": "string", "_type": "Value"}, "clip": {"sampling_rate": 16_000, "_type": "Audio"}}
    table = pa.table({"question": ["x", "y"], "clip": clips})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    (tmp_path / "set" / "data").mkdir(parents=True)
    pq.write_table(table, tmp_path / "set" / "data" / "usa-00000-of-00001.parquet")
    assert isinstance(
        datasets.load_dataset(str(tmp_path / "set"), streaming=True)["usa"].features["clip"], datasets.Audio
    )
    ref, columns = f"hf:{tmp_path}/set?split=usa", {"text": "question", "audio": "clip"}
    manifest = open_manifest(ref, columns=columns)
    assert manifest.format == "hf"
    assert manifest.samples == (
        Sample("set-000001", sound(hertz=300.0), "x"),
        Sample("set-000002", sound(hertz=400.0), "y"),
    )
    (one,) = open_manifest(f"{ref}&limit=1&into={tmp_path}/audio", columns=columns).samples
    assert Path(str(one.audio)).read_bytes() == sound(hertz=300.0)
    with pytest.raises(UndersongError, match="cannot be read"):
        open_manifest(f"hf:{tmp_path}/set?split=nga", columns=columns)
    with pytest.raises(UndersongError, match="cannot be read"):
        open_manifest(f"hf:{tmp_path}/nowhere")


@pytest.mark.parametrize("ref", ["hf:", "hf:a/b?splt=x", "hf:a/b?limit=x"])
def test_a_reference_that_cannot_be_meant(ref: str) -> None:
    with pytest.raises(UndersongError, match=r"hf:.*(write hf:OWNER/NAME|write a number)"):
        open_manifest(ref)
