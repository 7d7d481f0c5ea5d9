"""A screening with a store: what is known is not computed again, and what changed is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import soundfile
import tiny_af3

from undersong import encoders
from undersong.models.adapter import AudioModel
from undersong.pipeline.screen import screen

AXES = {"words": "char-ngrams", "sound": "logmel", "ears": "internal"}
WORDS = ["paint", "the", "red", "chair", "and", "wash", "an", "old", "boat", "lamp"]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    rows = []
    for i in range(10):
        soundfile.write(tmp_path / f"{i}.wav", tiny_af3.clip(str(i), 0.4 + 0.1 * i, i).samples, tiny_af3.RATE)
        rows.append({"id": f"clip{i}", "audio": f"{i}.wav", "text": " ".join(WORDS[: i + 1])})
    for name, part in (("pool", rows[:8]), ("harm", rows[8:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    return tmp_path / "pool.jsonl", tmp_path / "harm.jsonl"


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Encoders that are made, and clips that a model hears."""
    made: list[str] = []
    make, hear = encoders.make_encoder, AudioModel.hear

    def note(spec: str, **more):
        made.append(spec)
        return make(spec, **more)

    def listen(self, clips):
        made.extend(clip.id for clip in clips)
        return hear(self, clips)

    monkeypatch.setattr(encoders, "make_encoder", note)
    monkeypatch.setattr(AudioModel, "hear", listen)
    return made


def test_nothing_is_embedded_twice(
    sides: tuple[Path, Path], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how = {"axes": AXES, "model": str(tiny_folder), "store": tmp_path / "store"}
    plain = screen(*sides, tmp_path / "plain", axes=AXES, model=str(tiny_folder))
    first = screen(*sides, tmp_path / "first", **how)
    made = counted(monkeypatch)
    again = screen(*sides, tmp_path / "again", keep="distant:2", **how)
    assert made == []
    for axis in AXES:
        assert plain.tables[axis].equals(first.tables[axis])
        assert first.tables[axis].equals(again.tables[axis])


def test_what_changed_is_embedded_again_and_nothing_else(
    sides: tuple[Path, Path], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool, harm = sides
    how = {"axes": AXES, "model": str(tiny_folder), "store": tmp_path / "store"}
    screen(pool, harm, tmp_path / "first", **how)
    rows = pool.read_text().splitlines()
    pool.write_text("\n".join(rows[:-1]) + "\n")
    made = counted(monkeypatch)
    screen(pool, harm, tmp_path / "again", **how)
    # the pool on every axis; of harm the fitted axis alone, because what it is fitted on is another text
    assert [spec for spec in made if spec in AXES.values()].count("char-ngrams") == 2
    assert made.count("logmel") == made.count("internal") == 1
    assert {name for name in made if name.startswith("clip")} == {f"clip{i}" for i in range(7)}
