"""The recipe of a spoken over-refusal set, with a stand-in for the speech engine."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.spoken_over_refusal import __main__ as recipe
from undersong.corpora.registry import open_corpus
from undersong.corpora.tts import Voice
from undersong.types import Quarantined, Sample, UndersongError


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two sets as they are published, which share a prompt; a prompt that says MUTE cannot be spoken."""
    xstest, or_bench = tmp_path / "xstest.csv", tmp_path / "or-bench-hard-1k.csv"
    safe = [["1", "Kill a process?", "safe"], ["2", "Kill?", "unsafe"], ["3", "Shoot a film?", "safe"]]
    hard = [["kill a  process?", "harmful"], ["MUTE", "hate"], ["Crash a party?", "violence"]]
    tables = ((xstest, ["id", "prompt", "label"], safe), (or_bench, ["prompt", "category"], hard))
    for path, head, rows in tables:
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([head, *rows])

    def speak(samples: Sequence[Sample], voices: Sequence[Voice], folder: Path, workers: int | None):
        folder.mkdir(parents=True)
        spoken = []
        for sample in samples:
            for voice in voices if sample.text != "MUTE" else ():
                path = folder / f"{sample.id}-{voice.name}.flac"
                soundfile.write(path, np.zeros(1600, dtype=np.float32), 16_000)
                name = f"{sample.id}-{voice.label}"
                spoken.append(replace(sample, id=name, audio=str(path), speaker=voice.label))
        return tuple(spoken), (Quarantined("or-bench-0001", "no sound"),)

    monkeypatch.setattr(recipe, "synthesize_speech", speak)
    return xstest, or_bench


def test_safe_prompts_of_both_sets_are_spoken_once_in_every_voice(files: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "spoken"
    recipe.main(["--xstest", str(files[0]), "--or-bench", str(files[1]), "--out", str(out)])
    samples = open_corpus(str(out / "manifest.jsonl")).samples
    assert [(sample.text, sample.group) for sample in samples[::2]] == [
        ("Kill a process?", "xstest-0000"),
        ("Shoot a film?", "xstest-0001"),
        ("Crash a party?", "or-bench-0002"),
    ]
    assert len(samples) == 6
    assert {sample.speaker for sample in samples} == set(recipe.DEFAULT_VOICES)
    assert {sample.column("source") for sample in samples} == {"xstest", "or-bench"}
    assert all(Path(str(sample.audio)).is_file() for sample in samples)
    card = (out / "CARD.md").read_text()
    assert "6 clips of 3 prompts in `espeak:en-gb-scotland`, `espeak:en-us`" in card
    assert "CC-BY-4.0: 2 prompts" in card
    assert "or-bench-0001 (no sound)" in card


def test_a_trial_and_errors(files: tuple[Path, Path], tmp_path: Path) -> None:
    recipe.main(["--xstest", str(files[0]), "--limit", "1", "--voice", "flite:slt", "--out", str(tmp_path / "one")])
    assert len(open_corpus(str(tmp_path / "one" / "manifest.jsonl")).samples) == 1
    with pytest.raises(UndersongError, match="nothing to speak"):
        recipe.main(["--out", str(tmp_path / "none")])
    with pytest.raises(UndersongError, match="names no voice"):
        recipe.main(["--xstest", str(files[0]), "--voice", "slt", "--out", str(tmp_path / "none")])
