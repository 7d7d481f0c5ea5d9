"""One recording on two sides, in another coding: found by its sound in screenings and in studies."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from screen_call import screen

from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.store.store import Store
from undersong.study.checks import count_near_overlaps

RATE = 16_000


def speech(seed: int) -> np.ndarray:
    """Two seconds of syllables: noise in bands that come and go."""
    rng, time = np.random.default_rng(seed), np.arange(2 * RATE) / RATE
    bands = [
        np.sin(2 * np.pi * rng.uniform(150, 3000) * time) * (np.sin(2 * np.pi * rng.uniform(1, 6) * time + seed) > 0)
        for _ in range(8)
    ]
    return 0.05 * sum(bands) + 0.002 * rng.standard_normal(len(time))


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Six clips of the pool and two of harm, the second of which is pool clip 4 softer, later and through a codec."""

    def manifest(name: str, waves: list[np.ndarray], form: str) -> Path:
        rows = []
        for i, wave in enumerate(waves):
            soundfile.write(tmp_path / f"{name}{i}.{form}", wave, RATE)
            rows.append({"id": f"{name}{i}", "audio": f"{name}{i}.{form}"})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / f"{name}.jsonl"

    again = np.concatenate([np.zeros(800), 0.4 * speech(4)])
    return manifest("pool", [speech(i) for i in range(6)], "wav"), manifest("harm", [speech(20), again], "ogg")


def test_a_screening_finds_the_same_recording_by_its_sound(sides, tmp_path: Path) -> None:
    found = screen(*sides, tmp_path / "out", axes={"sound": "logmel"}).report["near_duplicates"]
    assert found["kinds"] == {"nearly the same audio": 1}
    (pair,) = found["first"]
    assert (pair["item_a"], pair["item_b"]) == ("pool4", "harm1")
    assert 0.92 <= pair["similarity"] < 1
    assert found["unchecked"] == [0, 0]


def test_without_an_axis_that_listens_it_is_said_what_was_not_looked_at(sides, tmp_path: Path) -> None:
    for place in sides:
        rows = [json.loads(line) for line in place.read_text().splitlines()]
        texts = ("paint a chair", "wash the boat", "draw a lamp", "rob a red bank", "sing", None)
        rows = [{**row, "text": f"{text} {place.stem[0]}" if text else None} for row, text in zip(rows, texts)]
        place.write_text("".join(json.dumps(row) + "\n" for row in rows))
    made = screen(*sides, tmp_path / "out", axes={"words": "tfidf"}, max_quarantined=0.2)
    found = made.report["near_duplicates"]
    assert "nearly the same audio" not in found["kinds"]
    assert found["unchecked"] == [1, 0]  # of the pool's last clip nothing is known


def test_a_study_counts_it_between_all_its_corpora(sides, tmp_path: Path) -> None:
    shop = RunContext(Store(tmp_path / "store"))
    pool, tested = (load_corpus(shop, str(side)) for side in sides)
    record = SimpleNamespace(pool=pool, harm={}, benign_reference=None, sets={"test": tested})
    assert count_near_overlaps(record) == [("pool", "test", "nearly the same audio", 1)]  # type: ignore[arg-type]
    assert set(pool.fingerprints) == {f"pool{i}" for i in range(6)}
    unheard = load_corpus(shop, str(sides[0]), decode=False)
    assert unheard.fingerprints == {}
