"""Fault 5: a file that could not be read became a zero vector at distance 1, and so the "safest" sample."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
from screen_call import screen

from undersong.corpora.decode import load_clip
from undersong.types import UndersongError


@pytest.fixture
def corpora(benign, harmful, tmp_path: Path) -> tuple[Path, Path]:
    """Spoken files, one of them cut off in its header."""
    for name, samples in (("pool", benign[:40]), ("harm", harmful[:4])):
        rows = []
        for sample in samples:
            file = tmp_path / f"{sample.id}.wav"
            soundfile.write(file, load_clip(sample, 16_000).samples, 16_000)
            rows.append({"id": sample.id, "audio": file.name})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    broken = tmp_path / f"{benign[7].id}.wav"
    broken.write_bytes(broken.read_bytes()[:30])
    return tmp_path / "pool.jsonl", tmp_path / "harm.jsonl"


def test_it_is_left_out_with_its_reason_and_never_ranked(corpora, benign, tmp_path: Path) -> None:
    screened = screen(*corpora, tmp_path / "out", keep="distant:0.25", max_quarantined=0.05)
    assert [item.id for item in screened.quarantined] == [benign[7].id]
    assert benign[7].id not in screened.selection.ids
    assert benign[7].id not in screened.tables["acoustic"].column("id").to_pylist()


def test_more_than_one_in_a_hundred_stops_it(corpora, benign, tmp_path: Path) -> None:
    with pytest.raises(UndersongError, match=benign[7].id):
        screen(*corpora, tmp_path / "out", keep="distant:0.25")
    assert not (tmp_path / "out").exists()
