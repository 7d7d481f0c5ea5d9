"""The demo's spoken set: what the shipped files hold, and that their card tells of them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.mini import demo_set, demo_texts
from recipes.mini.demo_card import CARD
from recipes.mini.near_duplicates import near_pairs, plain
from undersong import checkout
from undersong.corpora.decode import load_clip
from undersong.corpora.registry import MINI_FOLDER, open_corpus
from undersong.corpora.tts import Voice
from undersong.store.hashing import hash_file
from undersong.study.load import packaged_study
from undersong.types import Sample, UndersongError

FOLDER = checkout.checkout_folder(MINI_FOLDER)
NAMES = ("pool", "requests", "mild", "reference")


def samples(name: str) -> tuple[Sample, ...]:
    return open_corpus(f"mini:{name}").samples


def test_the_card_tells_of_the_files_by_hash() -> None:
    card = (FOLDER / CARD).read_text(encoding="utf-8")
    told = dict(re.findall(r"\| `mini:(\w+)` \|.*\| `([0-9a-f]{64})` \|", card))
    assert told == {name: hash_file(FOLDER / f"{name}.parquet") for name in NAMES}
    assert all(f"| `mini:{name}` | {len(samples(name))} |" in card for name in NAMES)
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= demo_set.LARGEST


def test_its_speech_is_opus_that_a_window_holds() -> None:
    for name in ("pool", "requests", "mild"):
        for sample in samples(name):
            assert isinstance(sample.audio, bytes)
            assert sample.audio.startswith(b"OggS")
            assert b"OpusHead" in sample.audio[:64]
            assert 0 < (sample.seconds or 0) < demo_set.SECONDS


def test_licenses_and_answers_are_noted() -> None:
    licenses = {source.license for source in demo_texts.SOURCES.values()}
    assert licenses == {"Apache-2.0", "CC-BY-SA-3.0", "MIT"}
    assert all(dict(sample.labels)["license"] in licenses for name in NAMES for sample in samples(name))
    assert all(sample.answer for sample in samples("pool"))
    assert not any(sample.answer for name in ("requests", "mild", "reference") for sample in samples(name))


def test_what_is_asked_is_not_learned_and_no_cluster_is_on_both_sides() -> None:
    groups = {name: {sample.group for sample in samples(name)} for name in NAMES}
    assert not groups["requests"] & groups["reference"]
    pool = [plain(sample.text or "") for sample in samples("pool")]
    asked = [plain(sample.text or "") for name in ("requests", "mild") for sample in samples(name)]
    assert near_pairs(asked, pool) == []


def test_the_mild_requests_are_all_there() -> None:
    assert tuple(sample.text for sample in samples("mild")) == demo_texts.MILD
    assert {sample.speaker for sample in samples("mild")} == {demo_set.CLEAR.label}


def test_the_study_reads_them() -> None:
    study = packaged_study("mini_demo")
    assert {*study.corpora} == {f"mini:{name}" for name in NAMES}
    assert study.prompt_sets["advbench"].harmful
    assert not study.prompt_sets["mild"].harmful
    selected = round(study.selection.fractions[0] * len(samples("pool")))
    assert study.tuning.save_steps[-1] * study.tuning.batch_size <= selected


def test_a_topic_has_different_frames_and_everyday_requests_are_whole() -> None:
    rows = demo_texts.everyday()
    assert len({row["text"] for row in rows}) == len(rows) == 6 * len((*demo_texts.DOING, *demo_texts.THINGS))
    assert all("{" not in row["text"] and row["text"].endswith(".") for row in rows)


def test_an_installation_without_the_set_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkout, "checkout_folder", lambda name: tmp_path / name)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UndersongError, match=r"does not hold mini:pool; go to a checkout .* models/mini_demo"):
        open_corpus("mini:pool")


def test_nothing_that_nearly_repeats_what_was_taught_is_in_the_pool() -> None:
    untaught = [
        {"id": "nq1", "text": "Who wrote the first novel?", "kind": "nq", "group": "nq1"},
        {"id": "alpaca1", "text": "Name a color.", "kind": "alpaca", "group": "alpaca1"},
        {"id": "self1", "text": "Plan a quiet weekend for me.", "kind": "self", "group": "self1"},
    ]
    rows = demo_texts.everyday()
    taught = rows[0]["text"].replace(".", " please.")
    chosen = {row["id"] for row in demo_texts.pool_candidates(untaught, [taught, "who wrote the first novel"])}
    assert chosen.isdisjoint({rows[0]["id"], "nq1", "alpaca1"})  # and no instruction whose license is non-commercial
    assert "self1" in chosen


def test_a_sentence_is_spoken_in_opus_by_one_voice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that a window does not hold is left out."""
    lengths = {"a": 1.5, "b": 7.5, "mild0": 0.5}

    def speak(samples: list[Sample], voices: list[Voice], folder: Path) -> tuple[list[Sample], tuple[()]]:
        made = []
        for sample in samples:
            file = tmp_path / f"{sample.id}.flac"
            soundfile.write(file, np.sin(np.arange(round(22_050 * lengths[sample.id])) / 9), 22_050)
            made.append(replace(sample, audio=str(file), speaker=voices[0].label))
        return made, ()

    monkeypatch.setattr(demo_set, "synthesize_speech", speak)
    rows = [
        {"id": name, "text": "Say it.", "kind": kind, "group": name}
        for name, kind in (("a", "own"), ("b", "own"), ("mild0", "mild"))
    ]
    first, mild = demo_set.spoken(rows, {"a": "It."}, tmp_path)
    assert (first.id, first.answer, first.seconds, mild.speaker) == ("a", "It.", 1.5, demo_set.CLEAR.label)
    assert dict(first.labels) == {"kind": "own", "license": "Apache-2.0", "mood": "imperative"}
    assert isinstance(first.audio, bytes)
    assert load_clip(first).samples.size == 24_000
