"""Fault 14: unreadable audio became a second of silence and was trained on; errors were skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from undersong.stages.training import select_by_id
from undersong.standalone.tune import tune_manifest
from undersong.types import Quarantined, UndersongError


def test_tuning_stops_before_step_one(benign, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    rows = [{"id": "a", "audio": "a.wav", "text": benign[0].text, "answer": benign[0].answer}]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UndersongError, match="a"):
        tune_manifest(tmp_path / "pool.jsonl", "organism:af3", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_selected_sample_that_was_lost_is_named(benign) -> None:
    lost = [Quarantined(benign[0].id, "cannot be decoded")]
    with pytest.raises(UndersongError, match=rf"{benign[0].id} cannot be used \(cannot be decoded"):
        select_by_id(benign[1:], lost, [benign[1].id, benign[0].id])
