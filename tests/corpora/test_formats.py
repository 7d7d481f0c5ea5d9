"""Any form of corpus is found by its content and read to the same samples; a fault is named with its place."""

import csv
import json
from pathlib import Path

import pytest

from undersong.corpora.formats import open_manifest
from undersong.types import Sample, UndersongError


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


CHAT = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "<audio>\nAnswer."},
        {"role": "assistant", "content": "Four. "},
    ],
    "audios": ["a.wav"],
    "id": "q1",
    "region": "nga",
}
PARTS = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Answer."}, {"type": "audio", "audio": "a.wav"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Four. "}]},
    ],
    "system": "Be brief.",
    "id": "q1",
    "region": "nga",
}
SHAREGPT = {
    "id": "q1",
    "audio": "a.wav",
    "conversations": [
        {"from": "system", "value": "Be brief."},
        {"from": "human", "value": "<audio>\nAnswer."},
        {"from": "gpt", "value": "Four. "},
    ],
    "region": "nga",
}
KIMI = {
    "task_type": "understanding",
    "id": "q1",
    "conversation": [
        {"role": "system", "message_type": "text", "content": "Be brief."},
        {"role": "user", "message_type": "text", "content": "Answer."},
        {"role": "user", "message_type": "audio", "content": "a.wav", "audio_tokens": [1, 2]},
        {"role": "assistant", "message_type": "text", "content": "Four. "},
    ],
    "region": "nga",
}

ALPACA = {
    "instruction": "<audio>",
    "input": "Answer.",
    "output": "Four. ",
    "system": "Be brief.",
    "history": [],
    "audios": ["a.wav"],
    "id": "q1",
    "region": "nga",
}
QUERY = {
    "query": "<audio>Answer.",
    "response": "Four. ",
    "system": "Be brief.",
    "audios": "a.wav",
    "id": "q1",
    "region": "nga",
}
EVERY = [
    (CHAT, "messages"),
    (SHAREGPT, "sharegpt"),
    (KIMI, "kimi"),
    (PARTS, "messages"),
    (ALPACA, "alpaca"),
    (QUERY, "query"),
]


@pytest.mark.parametrize(("row", "form"), EVERY)
@pytest.mark.parametrize("layout", ["lines", "list", "pretty"])
def test_one_conversation_in_every_form_is_the_same_sample(tmp_path: Path, row: dict, form: str, layout: str) -> None:
    path = tmp_path / "train.data"  # the name says nothing
    texts = {"lines": json.dumps(row), "list": json.dumps([row]), "pretty": json.dumps([row], indent=1)}
    path.write_text(texts[layout])
    manifest = open_manifest(path)
    labels = (("instruction", "Answer."), ("region", "nga"), ("system", "Be brief."))
    assert manifest.samples == (Sample("q1", str(tmp_path / "a.wav"), answer="Four. ", labels=labels),)  # to the letter
    assert (manifest.format, manifest.quarantined, manifest.root) == (form, (), tmp_path)


def test_flat_conversations_are_no_manifests_and_manifests_no_conversations(tmp_path: Path) -> None:
    written = {"instruction": "Add.", "input": "2 and 2", "output": "4"}
    assert open_manifest(write(tmp_path / "a.jsonl", written)).samples == (
        Sample("a-000001", text="Add.\n2 and 2", answer="4"),
    )
    plain = open_manifest(write(tmp_path / "b.jsonl", {"text": "x", "instruction": "Add.", "output": "4"}))
    assert (plain.format, plain.samples[0].text) == ("jsonl", "x")
    mapped = open_manifest(tmp_path / "a.jsonl", columns={"text": "input", "answer": "output"})
    assert (mapped.format, mapped.samples[0].text) == ("jsonl", "2 and 2")
    turns = write(tmp_path / "c.jsonl", QUERY, {**QUERY, "id": "q2", "history": [["Hello", "Hi"]]})
    later = {**QUERY, "id": "q3", "response": "<audio>"}
    manifest = open_manifest(write(turns, QUERY, {**QUERY, "id": "q2", "history": [["Hello", "Hi"]]}, later))
    assert [sample.id for sample in manifest.samples] == ["q1"]
    assert [(item.id, item.reason) for item in manifest.quarantined] == [
        ("q2", "it has turns before its question"),
        ("q3", "its answer is spoken"),
    ]


def test_what_is_typed_beside_a_clip_is_the_transcript_only_if_the_user_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", CHAT)
    assert open_manifest(path).samples[0].text is None
    (sample,) = open_manifest(path, columns={"text": "instruction"}).samples
    assert sample.text == "Answer."
    assert sample.column("instruction") is None


def test_a_written_question_is_text(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}]
    manifest = open_manifest(write(tmp_path / "x.jsonl", {"messages": turns}, {"messages": turns[:1]}))
    assert manifest.samples == (Sample("x-000001", text="2+2?", answer="4"), Sample("x-000002", text="2+2?"))


USER, ASSISTANT = {"role": "user", "content": "<audio>"}, {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": [USER, ASSISTANT, USER, ASSISTANT], "audios": ["a", "b"]}, "its turns are user, assistant, user"),
        ({"messages": [ASSISTANT], "audios": []}, "its turns are assistant"),
        ({"messages": [], "audios": []}, "its turns are none"),
        ({"messages": [USER, ASSISTANT], "audios": []}, "1 placeholders <audio> and 0 clips"),
        ({"messages": [USER, ASSISTANT], "audios": ["a", "b"]}, "1 placeholders <audio> and 2 clips"),
        ({"messages": [{"role": "user", "content": "x"}, ASSISTANT], "audios": ["a", "b"]}, "2 clips instead of one"),
        ({"messages": [{"role": "user", "content": ""}, ASSISTANT]}, "neither audio nor text"),
        ({"messages": [{"role": "tool", "content": "x"}, ASSISTANT]}, "from 'tool'"),
        ({"messages": [{"role": "user", "content": 3}, ASSISTANT]}, "neither text nor a list"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "type 'video'"),
        ({"messages": ["x"]}, "no list of messages"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "<audio>"}]}, "spoken"),
        ({"messages": [USER, ASSISTANT], "audios": ["a"], "undersong": "{"}, "Expecting"),
    ],
)
def test_what_is_no_question_and_answer_is_set_aside_with_its_reason(tmp_path: Path, row: dict, reason: str) -> None:
    manifest = open_manifest(write(tmp_path / "x.jsonl", CHAT, {**row, "id": "bad"}))
    assert [sample.id for sample in manifest.samples] == ["q1"]
    ((ident, why),) = [(item.id, item.reason) for item in manifest.quarantined]
    assert ident == "bad"
    assert reason in why


def test_a_spoken_answer_in_kimis_form_is_set_aside(tmp_path: Path) -> None:
    turns = [{"role": role, "message_type": "audio", "content": "a.wav"} for role in ("user", "assistant")]
    manifest = open_manifest(write(tmp_path / "x.jsonl", {"conversation": turns}))
    assert [(item.id, item.reason) for item in manifest.quarantined] == [("x-000001", "its answer is spoken")]


def test_a_column_map(tmp_path: Path) -> None:
    row = {"qid": 7, "q": "why", "ref": {"text": ["b", "c"]}, "text": "own", "region": "nga"}
    path = write(tmp_path / "x.jsonl", row, {**row, "qid": 8})
    columns = {"id": "qid", "text": "q", "answer": "ref.text.0", "answers": "ref.text", "group": "q"}
    (first, _) = open_manifest(path, columns=columns).samples
    labels = (("ref", '{"text": ["b", "c"]}'), ("region", "nga"), ("source_text", "own"))
    assert first == Sample("7", text="why", answer="b", answers=("b", "c"), group="why", labels=labels)
    write(path, {"id": "a", "answer": ["x", "y"]})
    assert open_manifest(path, columns={"answers": "answer"}).samples == (Sample("a", answers=("x", "y")),)
    write(path, {"text": "id", "id": "text"})  # swapped
    assert open_manifest(path, columns={"text": "id", "id": "text"}).samples == (Sample("id", text="text"),)
    with pytest.raises(UndersongError, match="'regoin'; did you mean 'region'"):
        open_manifest(write(path, row), columns={"speaker": "regoin"})
    with pytest.raises(UndersongError, match=r"'txt', which is no field; did you mean 'text'\?$"):
        open_manifest(path, columns={"txt": "q"})
    with pytest.raises(UndersongError, match="'jsnl'; did you mean 'json"):
        open_manifest(path, format="jsnl")


def test_rows_without_ids_are_numbered_but_a_lost_id_is_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path / "x.jsonl", {"text": "a"}, {"text": "b"})
    assert [sample.id for sample in open_manifest(path).samples] == ["x-000001", "x-000002"]
    with pytest.raises(UndersongError, match=r"Line 2 .* no usable id"):
        open_manifest(write(path, {"id": "a"}, {"text": "b"}))
    with pytest.raises(UndersongError, match=r"Line 2 .* no usable id"):
        open_manifest(write(path, {"qid": "a"}, {"text": "b"}), columns={"id": "qid"})


def test_a_json_object_around_a_list(tmp_path: Path) -> None:
    whole = {"canary": "x", "examples": [{"input": "a", "target": "b"}]}
    (tmp_path / "task.json").write_text(json.dumps(whole))
    manifest = open_manifest(tmp_path / "task.json", columns={"text": "input", "answer": "target"})
    assert (manifest.format, manifest.samples) == ("json", (Sample("task-000001", text="a", answer="b"),))
    (tmp_path / "task.json").write_text(json.dumps({"a": [1], "b": [2]}, indent=1))
    with pytest.raises(UndersongError, match="holds 2 lists"):
        open_manifest(tmp_path / "task.json")


@pytest.fixture
def spoken(tmp_path: Path, sound: object) -> Path:
    (tmp_path / "clips").mkdir()
    for name in ("a.wav", "clips/b.flac", "clips/c.ogg"):
        (tmp_path / name).write_bytes(b"RIFF")
    return tmp_path


@pytest.mark.parametrize("name", ["metadata.csv", "said.tsv", "m.jsonl"])
def test_a_folder_with_a_transcript_file(spoken: Path, name: str) -> None:
    rows = [{"file": "a.wav", "text": "one", "speaker": "s"}, {"file": "./clips/b.flac", "text": "two", "speaker": "s"}]
    if name.endswith(".jsonl"):
        write(spoken / name, *rows)
    else:
        with (spoken / name).open("w", newline="") as file:
            table = csv.DictWriter(file, list(rows[0]), delimiter="\t" if name.endswith("tsv") else ",")
            table.writeheader()
            table.writerows(rows)
    manifest = open_manifest(spoken)
    assert manifest.format == "folder"
    assert manifest.samples == (
        Sample("a", str(spoken / "a.wav"), "one", speaker="s"),
        Sample("clips/b", f"{spoken}/clips/b.flac", "two", speaker="s"),
        Sample("clips/c", f"{spoken}/clips/c.ogg"),  # nobody wrote down what is said in it: it is not lost
    )
    (spoken / name).unlink()
    write(spoken / "m.jsonl", {"file": f"{spoken}/clips/c.ogg", "text": "three", "id": "own"})  # as an absolute path
    ids = [(sample.id, sample.text) for sample in open_manifest(spoken).samples]
    assert ids == [("own", "three"), ("a", None), ("clips/b", None)]
    write(spoken / "other.jsonl", {"file": "a.wav"})
    with pytest.raises(UndersongError, match=r"needs one transcript file.*other\.jsonl"):
        open_manifest(spoken)


def test_a_folder_of_audio_that_nothing_was_written_down_for(spoken: Path) -> None:
    manifest = open_manifest(spoken)
    assert manifest.format == "folder"
    assert [(sample.id, sample.text) for sample in manifest.samples] == [
        ("a", None),
        ("clips/b", None),
        ("clips/c", None),
    ]
    (spoken / "notes.csv").write_text("name,what\na,b\n")  # a table of something else is no transcript
    assert len(open_manifest(spoken).samples) == 3


def test_librispeech(tmp_path: Path) -> None:
    chapter = tmp_path / "train" / "19" / "198"
    chapter.mkdir(parents=True)
    (chapter / "19-198-0000.flac").write_bytes(b"fLaC")
    (chapter / "19-198.trans.txt").write_text("19-198-0000 NORTHANGER ABBEY\n19-198-0001 THIS LITTLE WORK\n")
    manifest = open_manifest(tmp_path)
    assert manifest.format == "librispeech"
    first, second = manifest.samples
    labels = (("chapter", "198"),)
    assert first == Sample(
        "19-198-0000", f"{chapter}/19-198-0000.flac", "NORTHANGER ABBEY", speaker="19", labels=labels
    )
    assert second.audio == f"{chapter}/19-198-0001.flac"  # missing: said when it is opened
    (chapter / "19-198.trans.txt").write_text("19-198-0000 A\nTHIS LINE HAS NO ID\n")
    with pytest.raises(UndersongError, match=r"Line 2 of .*19-198\.trans\.txt"):
        open_manifest(tmp_path)


def test_folders_that_are_nothing_or_two_things(tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match="no manifest in"):
        open_manifest(tmp_path)
    (tmp_path / "1-2.trans.txt").write_text("1-2-3 A\n")
    write(tmp_path / "m.jsonl", {"file": "a.wav"})
    with pytest.raises(
        UndersongError, match=r"a folder of audio or LibriSpeech; name the file in it that you mean \(\S*m\.jsonl\)"
    ):
        open_manifest(tmp_path)
    assert open_manifest(tmp_path, format="librispeech").format == "librispeech"
    with pytest.raises(UndersongError, match="no manifest"):
        open_manifest(tmp_path / "missing")
