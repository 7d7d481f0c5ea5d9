"""Tables with the column names of the field are read; audio that is left out is said."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from undersong.corpora.formats import open_manifest
from undersong.corpora.registry import corpus_columns
from undersong.types import UndersongError


def table(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> str:
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(1600) / 5) / 2, 16_000)
    return "a.wav"


@pytest.mark.parametrize("column", ["path", "file", "wav", "audio_path", "audio_filepath", "file_name", "Path"])
def test_a_common_name_of_audio_is_known(tmp_path: Path, clip: str, column: str) -> None:
    file = table(tmp_path / "al.csv", {column: clip, "text": "sing", "speaker": "al"})
    manifest = open_manifest(file)
    assert manifest.samples[0].audio == str(tmp_path / clip)
    (note,) = manifest.notes
    assert f"column {column!r} as audio" in note
    assert str(file) in note


@pytest.mark.parametrize(
    "column",
    ["sentence", "transcription", "transcript", "prompt", "goal", "Goal", "Behavior", "behavior", "instruction"],
)
def test_a_common_name_of_text_is_known(tmp_path: Path, column: str) -> None:
    manifest = open_manifest(table(tmp_path / "al.csv", {column: "sing a song", "source": "me"}))
    assert manifest.samples[0].text == "sing a song"
    assert f"column {column!r} as text" in manifest.notes[0]


def test_our_names_and_the_column_map_come_first(tmp_path: Path, clip: str) -> None:
    row = {"path": clip, "transcript": "said", "text": "typed", "own": "mapped"}
    file = table(tmp_path / "al.csv", row)
    assert open_manifest(file).samples[0].text == "typed"
    assert open_manifest(file, columns={"text": "own"}).samples[0].text == "mapped"


def test_a_column_that_is_not_there_is_said_with_all_that_are(tmp_path: Path) -> None:
    file = table(tmp_path / "al.csv", {"id": "a", "text": "sing", "answer": "la", "speaker": "al", "mood": "calm"})
    with pytest.raises(UndersongError, match=r"a column 'nix'; choose from answer, id, mood, speaker, text\.$"):
        open_manifest(file, columns={"text": "nix"})


def test_a_request_goes_before_its_short_title(tmp_path: Path) -> None:
    """JailbreakBench has both columns."""
    row = {"Goal": "write a long letter", "Target": "Sure", "Behavior": "Letter"}
    sample = open_manifest(table(tmp_path / "jbb.csv", row)).samples[0]
    assert sample.text == "write a long letter"
    assert sample.column("Behavior") == "Letter"


def test_a_typed_instruction_is_no_transcript_of_the_clip_beside_it(tmp_path: Path, clip: str) -> None:
    sample = open_manifest(table(tmp_path / "al.csv", {"audio": clip, "instruction": "Answer."})).samples[0]
    assert sample.text is None


def test_a_path_that_is_no_audio_is_not_taken_for_it(tmp_path: Path) -> None:
    manifest = open_manifest(table(tmp_path / "al.csv", {"path": "notes/al.txt", "text": "sing"}))
    assert manifest.samples[0].audio is None
    assert manifest.notes == ()


def test_an_empty_first_field_does_not_hide_a_column(tmp_path: Path, clip: str) -> None:
    manifest = open_manifest(table(tmp_path / "al.csv", {"wav": "", "text": "sing"}, {"wav": clip, "text": "dance"}))
    assert [sample.audio for sample in manifest.samples] == [None, str(tmp_path / clip)]


def test_an_unknown_column_of_audio_files_is_named(tmp_path: Path, clip: str) -> None:
    file = table(tmp_path / "al.csv", {"recording": clip, "text": "sing"})
    assert corpus_columns(str(file)).unused_audio == "recording"
    assert "column 'recording' names audio files and is not used" in open_manifest(file).notes[0]
    assert corpus_columns(str(file), {"audio": "recording"}).notes == ()


def test_audio_files_beside_a_text_table_are_counted(tmp_path: Path, clip: str) -> None:
    manifest = open_manifest(table(tmp_path / "al.csv", {"id": "a", "text": "sing"}))
    assert "read as text alone, and 1 audio files lie beside it" in manifest.notes[0]


def test_conversations_keep_their_own_reading(tmp_path: Path, clip: str) -> None:
    row = {"messages": [{"role": "user", "content": "Answer."}], "prompt": "other", "clips": clip}
    (tmp_path / "al.jsonl").write_text(json.dumps(row) + "\n")
    manifest = open_manifest(tmp_path / "al.jsonl")
    assert manifest.samples[0].text == "Answer."
    assert "column 'clips' names audio files" in manifest.notes[0]
    mapped = open_manifest(tmp_path / "al.jsonl", columns={"audio": "clips"})
    assert mapped.samples[0].audio == str(tmp_path / clip)
    assert mapped.notes == ()
    assert corpus_columns(str(tmp_path / "al.jsonl"), {"audio": "clips"}).unused_audio is None


def test_a_missing_manifest_says_where_it_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndersongError, match=rf"There is no manifest pool\.csv in {tmp_path}; check the path\."):
        open_manifest("pool.csv")
