"""Training files as trainers take them: what they are recognized as, what is asked in them, and writing them back.

Rows are those of the trainers' own documentation and demo data: LLaMA-Factory `data/mllm_audio_demo.json`,
`data/README.md` and `data/dataset_info.json` (Apache-2.0), ms-swift `docs/source_en/Customization/Custom-dataset.md`
(Apache-2.0), axolotl `docs/multimodal.qmd` (Apache-2.0), TRL `docs/source/dataset_formats.md` (Apache-2.0), Kimi-Audio
`finetune_codes/README.md` (MIT).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.corpora.training_file import TrainingFile, open_training_file, training_columns
from undersong.corpora.training_rows import LAYOUTS, UnreadableRow, detect_layout, parse_row
from undersong.corpora.training_writer import new_entry, write_without
from undersong.types import UndersongError

SHATTER = {
    "messages": [
        {"content": "<audio>What's that sound?", "role": "user"},
        {"content": "It is the sound of glass shattering.", "role": "assistant"},
    ],
    "audios": ["mllm_demo_data/1.mp3"],
}
MATH = {
    "messages": [
        {"role": "system", "content": "You are a useful and harmless math calculator"},
        {"role": "user", "content": "What is 1 + 1?"},
        {"role": "assistant", "content": "It equals 2"},
        {"role": "user", "content": "What about adding 1?"},
        {"role": "assistant", "content": "It equals 3"},
    ]
}
PARTS = {
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "You are a helpful assistant."}]},
        {
            "role": "user",
            "content": [{"type": "audio", "path": "a.mp3"}, {"type": "text", "text": "Describe the sound."}],
        },
        {"role": "assistant", "content": [{"type": "text", "text": "It is a bee."}]},
    ]
}
SHAREGPT = {
    "conversations": [{"from": "human", "value": "human instruction"}, {"from": "gpt", "value": "model response"}],
    "system": "system prompt (optional)",
}
PAIRS = {"system": "<system>", "conversation": [{"human": "<query1>", "assistant": "<response1>"}]}
ALPACA = {
    "instruction": "human instruction",
    "input": "human input",
    "output": "model response",
    "history": [["q", "a"]],
}
QUERY = {"query": "<query2>", "response": "<response2>", "history": [["<query1>", "<response1>"]]}
COMPLETION = {"prompt": "The sky is", "completion": " blue."}
CHAT_COMPLETION = {
    "prompt": [{"role": "user", "content": "What color is the sky?"}],
    "completion": [{"role": "assistant", "content": "It is blue."}],
}
PREFERENCE = {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}
IMPLICIT = {
    "chosen": [{"role": "user", "content": "What color is the sky?"}, {"role": "assistant", "content": "It is blue."}],
    "rejected": [
        {"role": "user", "content": "What color is the sky?"},
        {"role": "assistant", "content": "It is green."},
    ],
}
KIMI = {
    "task_type": "understanding",
    "conversation": [
        {"role": "user", "message_type": "text", "content": "Please transcribe the spoken content into written text."},
        {"role": "user", "message_type": "audio", "content": "a.wav"},
        {"role": "assistant", "message_type": "text", "content": "hello"},
    ],
}
SKY = ["What color is the sky?"]
AUDIO_DEMO = {  # LLaMA-Factory's own entry
    "file_name": "mllm_audio_demo.json",
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "audios": "audios"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}


def write_jsonl(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("row", "recognized", "requests", "answer", "spoken"),
    [
        (SHATTER, "messages (ms-swift", ["What's that sound?"], "It is the sound of glass shattering.", True),
        (MATH, "messages (ms-swift", ["What is 1 + 1?", "What about adding 1?"], "It equals 3", False),
        (PARTS, "messages with parts (axolotl", ["Describe the sound."], "It is a bee.", True),
        (SHAREGPT, "ShareGPT", ["human instruction"], "model response", False),
        (PAIRS, "human and assistant (ms-swift)", ["<query1>"], "<response1>", False),
        (ALPACA, "Alpaca", ["q", "human instruction\nhuman input"], "model response", False),
        (QUERY, "query and response (ms-swift)", ["<query1>", "<query2>"], "<response2>", False),
        (COMPLETION, "prompt and completion (TRL)", ["The sky is"], " blue.", False),
        (CHAT_COMPLETION, "prompt and completion (TRL)", SKY, "It is blue.", False),
        (PREFERENCE, "preference pairs (TRL)", ["The sky is"], " blue.", False),
        (IMPLICIT, "preference pairs (TRL)", SKY, "It is blue.", False),
        (KIMI, "Kimi-Audio", ["Please transcribe the spoken content into written text."], "hello", True),
    ],
)
def test_a_row_is_recognized_and_every_turn_of_its_user_is_kept(
    tmp_path: Path, row: Mapping[str, Any], recognized: str, requests: list[str], answer: str, spoken: bool
) -> None:
    data = open_training_file(str(write_jsonl(tmp_path / "train.jsonl", [row, row])))
    assert recognized in data.recognized
    assert data.rows == 2
    assert [sample.id for sample in data.samples] == ["train-000001", "train-000002"]
    assert (list(data.samples[1].requests), data.samples[1].answer) == (requests, answer)
    assert (data.samples[1].spoken, data.samples[1].transcribed, data.samples[1].row) == (spoken, False, 1)


def test_a_row_that_asks_nothing_is_named_and_keeps_its_place(tmp_path: Path) -> None:
    silent = {"messages": [{"role": "assistant", "content": "I love music"}]}
    data = open_training_file(str(write_jsonl(tmp_path / "train.jsonl", [MATH, silent, MATH])))
    assert [sample.row for sample in data.samples] == [0, 2]
    assert "Line 2" in data.unreadable[0].id
    with pytest.raises(UndersongError, match="no row with a request, the first: Line 1"):
        open_training_file(str(write_jsonl(tmp_path / "silent.jsonl", [silent])))


@pytest.mark.parametrize("messages", ["hello", "", None, [], {}])
def test_messages_that_are_no_list_are_named_by_their_line(tmp_path: Path, messages: Any) -> None:
    broken = {"messages": messages}
    with pytest.raises(UndersongError, match=r"has no row with a request, the first: Line 1 of .*broken\.jsonl \(it"):
        open_training_file(str(write_jsonl(tmp_path / "broken.jsonl", [broken, broken])))
    data = open_training_file(str(write_jsonl(tmp_path / "mixed.jsonl", [broken, MATH])))
    assert [sample.row for sample in data.samples] == [1]
    assert [item.id.split()[:2] for item in data.unreadable] == [["Line", "1"]]
    table = open_training_file(str(write_jsonl(tmp_path / "table.jsonl", [{"text": "sing", "messages": "x"}])))
    assert "table" in table.recognized


ODD_VALUES = (None, 1, "x", [], [1], {}, [{}], [{"role": 1}], [{"role": "user", "content": 3}], [{"human": 3}], [["a"]])
COLUMNS = (
    "messages", "conversations", "conversation", "instruction", "input", "output", "history", "query", "response",
    "prompt", "completion", "chosen", "audios", "group",
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_row_of_odd_values_is_read_or_named(layout: str) -> None:
    for odd in ODD_VALUES:
        for column in COLUMNS:
            for row in ({column: odd}, {**dict.fromkeys(COLUMNS, odd), "prompt": "why?"}):
                detect_layout(row)
                with suppress(UnreadableRow):
                    parsed = parse_row(row, layout)
                    assert parsed.spoken or all(parsed.requests)
    with pytest.raises(UnreadableRow, match="not an object"):
        parse_row([], layout)  # type: ignore[arg-type]


def test_a_table_with_transcripts_is_spoken_and_transcribed(tmp_path: Path) -> None:
    (tmp_path / "pool.csv").write_text("id,audio,text,speaker,source\na,a.wav,sing a song,s1,radio\n")
    sample = open_training_file(str(tmp_path / "pool.csv")).samples[0]
    assert (sample.requests, sample.spoken, sample.transcribed) == (("sing a song",), True, True)
    assert (sample.speaker, sample.source) == ("s1", "radio")


def test_columns_make_a_table_of_any_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("goal\nsing a song\n")
    assert open_training_file(str(tmp_path / "a.csv"), {"text": "goal"}).samples[0].requests == ("sing a song",)


@pytest.fixture
def llama_factory(tmp_path: Path) -> Path:
    """The folder `data` of LLaMA-Factory with its audio demo and another data set."""
    (tmp_path / "mllm_audio_demo.json").write_text(json.dumps([SHATTER, {**SHATTER, "id": "second"}], indent=2))
    write_jsonl(tmp_path / "questions.jsonl", [{"question": "What is it?", "reply": "A bee.", "input": "not used"}] * 2)
    entries = {
        "mllm_audio_demo": AUDIO_DEMO,
        "questions": {"file_name": "questions.jsonl", "columns": {"prompt": "question", "response": "reply"}},
        "lima": {"hf_hub_url": "llamafactory/lima", "formatting": "sharegpt"},
    }
    (tmp_path / "dataset_info.json").write_text(json.dumps(entries))
    return tmp_path


def test_audio_that_a_trainer_would_not_read_is_noted(tmp_path: Path, sound: Callable[..., bytes]) -> None:
    (tmp_path / "a.wav").write_bytes(sound())
    file = tmp_path / "data.jsonl"

    def notes(*rows: dict[str, Any], columns: Mapping[str, str] | None = None) -> tuple[str, ...]:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        reading = training_columns(str(file), columns)
        assert reading.unused_audio is None or not open_training_file(str(file), columns).layout
        return reading.notes

    typed = {"instruction": "sing", "output": "la"}
    spoken = {**typed, "audios": ["a.wav"]}
    (beside,) = notes(typed)
    assert beside == f"{file} is read as text alone, and 1 audio files lie beside it; no column names them."
    (unused,) = notes({**typed, "clip": "a.wav"})
    assert "column 'clip' names audio files and is not used; a column map (audio=clip) reads them." in unused
    assert notes({**typed, "clip": "a.wav"}, columns={"audio": "clip"}) == ()
    assert notes(spoken) == ()
    assert notes(*[typed] * 150, spoken) == ()  # a clip after the first rows counts
    assert "column 'prompt' as text" in notes({"prompt": "sing"})[0]
    assert training_columns("shipped:harm").notes == training_columns(str(tmp_path / "none")).notes == ()


def test_dataset_info_gives_columns_and_tags(llama_factory: Path) -> None:
    audio = open_training_file(str(llama_factory / "mllm_audio_demo.json"))
    assert "data set mllm_audio_demo of LLaMA-Factory" in audio.recognized
    assert (audio.samples[0].requests, audio.samples[1].id) == (("What's that sound?",), "second")
    questions = open_training_file(str(llama_factory / "questions.jsonl"))
    assert (questions.samples[0].requests, questions.samples[0].answer) == (("What is it?",), "A bee.")
    with pytest.raises(
        UndersongError, match=r"lists 2 data sets with a local file; name one of them: .*questions\.jsonl"
    ):
        open_training_file(str(llama_factory))
    (llama_factory / "questions.jsonl").unlink()
    assert open_training_file(str(llama_factory)).samples == audio.samples


def read_as_llama_factory(folder: Path, name: str) -> list[dict[str, Any]]:
    """What `SharegptDatasetConverter` makes of a data set (`src/llamafactory/data/converter.py`): role and content."""
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    tags, column = entry["tags"], entry["columns"]["messages"]
    roles = {tags["user_tag"]: "user", tags["assistant_tag"]: "assistant"}
    rows = json.loads((folder / entry["file_name"]).read_text())
    return [
        {
            "messages": [(roles[item[tags["role_tag"]]], item[tags["content_tag"]]) for item in row[column]],
            "audios": row[entry["columns"]["audios"]],
        }
        for row in rows
    ]


def test_llama_factory_finds_the_written_file(llama_factory: Path, tmp_path: Path) -> None:
    data = open_training_file(str(llama_factory / "mllm_audio_demo.json"))
    out = tmp_path / "fixed" / "mllm_audio_demo.json"
    assert write_without(data, [0], out) == out.parent / "dataset_info.json"
    kept = read_as_llama_factory(out.parent, "mllm_audio_demo")
    assert kept == read_as_llama_factory(llama_factory, "mllm_audio_demo")[1:]
    assert out.read_text() == json.dumps([{**SHATTER, "id": "second"}], indent=2)
    beside = llama_factory / "less.json"
    before = (llama_factory / "dataset_info.json").read_text()
    assert write_without(data, [0], beside) is None
    assert (llama_factory / "dataset_info.json").read_text() == before  # the user's to change
    assert new_entry(data, beside) == {"less": {**AUDIO_DEMO, "file_name": "less.json"}}
    assert list(new_entry(data, llama_factory / "mllm_audio_demo.less.json") or ()) == ["mllm_audio_demo_less"]
    questions = llama_factory / "questions.json"  # a name that another file has
    assert new_entry(data, questions) == {"questions_2": {**AUDIO_DEMO, "file_name": "questions.json"}}


def texts(data: TrainingFile) -> list[tuple[str, ...]]:
    return [sample.requests for sample in data.samples]


def write_csv(file: Path) -> None:
    file.write_text('id;text;note\r\n"a";"sing\na song";x\r\n\r\nb;dig;"y;z"\r\nc;"say ""hi""";\r\n', newline="")


def write_parquet(file: Path) -> None:
    schema = pa.schema({"id": pa.string(), "text": pa.string()}, metadata={"huggingface": "kept"})
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": ["sing", "dig", "say"]}, schema), file, row_group_size=2)


def write_wrapped(file: Path) -> None:
    file.write_text(json.dumps({"version": 1, "data": [{"id": name, "text": f"é {name}"} for name in "abc"]}))


def write_messages(file: Path) -> None:
    rows = [json.dumps({**MATH, "id": name}, separators=(",", ":")) for name in "abc"]
    file.write_text(f"{rows[0]}\n\n{rows[1]}\n{rows[2]}")  # a blank line, and no line break at the end


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("data.csv", write_csv),
        ("data.parquet", write_parquet),
        ("data.json", write_wrapped),
        ("data.jsonl", write_messages),
    ],
)
def test_what_stays_is_read_back_as_it_was(tmp_path: Path, name: str, write: Callable[[Path], None]) -> None:
    write(tmp_path / name)
    data = open_training_file(str(tmp_path / name))
    assert [sample.id for sample in data.samples] == ["a", "b", "c"]
    write_without(data, (), tmp_path / f"all-{name}")
    again = open_training_file(str(tmp_path / f"all-{name}"))
    assert (again.samples, again.recognized, again.table_format) == (data.samples, data.recognized, data.table_format)
    write_without(data, [1], tmp_path / f"less-{name}")
    less = open_training_file(str(tmp_path / f"less-{name}"))
    assert [sample.id for sample in less.samples] == ["a", "c"]
    assert texts(less) == [texts(data)[0], texts(data)[2]]
    if name.endswith(("csv", "json")):
        assert (tmp_path / f"all-{name}").read_bytes() == (tmp_path / name).read_bytes()
    if name.endswith("parquet"):
        assert pq.read_schema(tmp_path / f"less-{name}").metadata == {b"huggingface": b"kept"}


def test_a_folder_of_audio_is_written_with_its_clips(tmp_path: Path, sound: Callable[..., bytes]) -> None:
    folder = tmp_path / "speech"
    (folder / "clips").mkdir(parents=True)
    for number in range(3):
        (folder / "clips" / f"{number}.wav").write_bytes(sound())
    (folder / "transcripts.csv").write_text("file,text\nclips/0.wav,sing\nclips/1.wav,dig\n")
    data = open_training_file(str(folder))
    assert texts(data) == [("sing",), ("dig",), ()]  # the third clip has no line
    write_without(data, [1], tmp_path / "less")
    less = open_training_file(str(tmp_path / "less"))
    assert [sample.id for sample in less.samples] == ["clips/0", "clips/2"]
    assert sorted(path.name for path in (tmp_path / "less").rglob("*.wav")) == ["0.wav", "2.wav"]


def test_rows_of_unknown_place_are_never_written(tmp_path: Path) -> None:
    """A column map reads conversations as a corpus, which leaves some out: no row may be taken for another."""
    single = {"messages": MATH["messages"][:3], "topic": "sums"}
    data = open_training_file(str(write_jsonl(tmp_path / "train.jsonl", [MATH, single])), {"group": "topic"})
    assert (len(data.samples), data.rows) == (1, 2)
    with pytest.raises(UndersongError, match="cannot be written back"):
        write_without(data, [0], tmp_path / "less.jsonl")


def test_what_cannot_be_written_back_says_so(tmp_path: Path) -> None:
    data = open_training_file(str(write_jsonl(tmp_path / "train.jsonl", [MATH])))
    with pytest.raises(UndersongError, match="is the data itself, which is never replaced"):
        write_without(data, [0], tmp_path / "train.jsonl")
    with pytest.raises(UndersongError, match="is a folder; name a file"):
        write_without(data, [0], tmp_path)
    for name, fitting in (
        ("less.csv", "less"),
        ("less", "less"),
        ("train.less", "train.less"),
        ("train.csv", "train.csv"),
    ):
        message = rf"JSONL, which {re.escape(name)} does not end as; name it .*/{re.escape(fitting)}\.jsonl with --fix"
        with pytest.raises(UndersongError, match=message):
            write_without(data, [0], tmp_path / name)
        assert not (tmp_path / name).exists()
    with pytest.raises(UndersongError, match="cannot be written back in its own format"):
        write_without(open_training_file("organism:test-far"), [0], tmp_path / "less.jsonl")
