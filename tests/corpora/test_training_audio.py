"""Clips of training files: found in every layout, and only files that are there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from undersong.corpora.training_audio import training_clips
from undersong.corpora.training_file import open_training_file


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


ANSWER = {"role": "assistant", "content": "yes"}
SPOKEN_ROWS = {
    "messages with audios": {"messages": [user("<audio>hear"), ANSWER], "audios": ["a.wav", "b.wav"]},
    "sharegpt": {
        "conversations": [{"from": "human", "value": "<audio>"}, {"from": "gpt", "value": "yes"}],
        "audios": ["a.wav"],
    },
    "parts": {"messages": [user([{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "hear"}]), ANSWER]},
    "part with an address": {
        "messages": [
            user([{"type": "audio_url", "audio_url": {"url": "a.wav"}}, {"type": "text", "text": "x"}]),
            ANSWER,
        ]
    },
    "kimi": {
        "task_type": "understanding",
        "conversation": [
            {"role": "user", "message_type": "audio", "content": "a.wav"},
            {"role": "assistant", "message_type": "text", "content": "yes"},
        ],
    },
    "alpaca": {"instruction": "<audio>hear", "input": "", "output": "yes", "audios": ["a.wav"]},
    "query": {"query": "<audio>hear", "response": "yes", "audios": ["a.wav"]},
    "a table": {"id": "t", "text": "hear", "audio": "a.wav"},
}


@pytest.mark.parametrize("name", SPOKEN_ROWS)
def test_the_first_clip_of_a_row_is_found_beside_the_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    file = tmp_path / "data.jsonl"
    file.write_text(json.dumps(SPOKEN_ROWS[name]) + "\n")
    data = open_training_file(str(file))
    assert training_clips(data, [0]) == {0: str(tmp_path / "a.wav")}
    assert training_clips(data, []) == {}
    assert training_clips(data, [7]) == {}


def test_what_is_no_file_here_is_no_clip(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [user("<audio>hear"), ANSWER], "audios": [clip]}
        for clip in ("gone.wav", "https://example.org/a.wav", "a\0.wav", "x" * 5000, ".", 7)
    ]
    rows.append({"messages": [user("written"), ANSWER]})
    file = tmp_path / "data.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert training_clips(open_training_file(str(file)), range(7)) == {}


def test_bytes_in_a_table_are_the_clip(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["hear", "see"], "audio": [{"bytes": b"RIFF", "path": None}, {"bytes": b"", "path": None}]}
    )
    pq.write_table(table, tmp_path / "data.parquet")
    assert training_clips(open_training_file(str(tmp_path / "data.parquet")), [0, 1]) == {0: b"RIFF"}
