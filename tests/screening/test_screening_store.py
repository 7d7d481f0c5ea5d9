"""A screening with a store: what is known is not computed again, and what changed is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import tiny_af3
from screen_call import screen

from undersong.encoders.registry import make_encoder
from undersong.models.audio_lm import AudioModel

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
    make, hear = make_encoder, AudioModel.encode_audio

    def note(spec: str, **more):
        made.append(spec)
        return make(spec, **more)

    def listen(self, clips):
        made.extend(clip.id for clip in clips)
        return hear(self, clips)

    monkeypatch.setattr("undersong.encoders.registry.make_encoder", note)
    monkeypatch.setattr(AudioModel, "encode_audio", listen)
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


def test_the_same_question_again_computes_nothing(sides: tuple[Path, Path], tmp_path: Path, monkeypatch) -> None:
    """Neither vectors nor distances nor findings; how the kept set is written is no other question."""
    from undersong.screening.pool import run as module

    how = {"axes": {"words": "char-ngrams"}, "store": tmp_path / "store", "keep": "closest:0.25"}
    first = screen(*sides, tmp_path / "first", **how)
    monkeypatch.setattr(module, "screening_findings", lambda *_: pytest.fail("computed again"))
    again = screen(*sides, tmp_path / "again", output_format="hub", **how)
    assert again.selection == first.selection
    assert again.tables["words"].equals(first.tables["words"])
    assert (tmp_path / "again" / "kept").is_dir()
    for name in ("proximity.parquet", "selection.json", "screening.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    with pytest.raises(pytest.fail.Exception):
        screen(*sides, tmp_path / "other", score="centroid", **how)


def test_a_study_finds_what_a_screening_embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key for both: look before the study costs anything."""
    from undersong.stages.context import RunContext
    from undersong.stages.corpus import load_corpus
    from undersong.stages.embeddings import EmbeddingRequest, embed_corpus
    from undersong.store.store import Store

    pair = "organism:unseen-benign", "organism:unseen-harm"
    screen(*pair, tmp_path / "out", axes={"words": "tfidf", "sound": "logmel"}, store=tmp_path / "store")
    shop = RunContext(Store(tmp_path / "store"))
    corpora = [load_corpus(shop, ref) for ref in pair]
    monkeypatch.setattr(
        "undersong.encoders.registry.make_encoder", lambda *_args, **_more: pytest.fail("embedded again")
    )
    for spec in ("tfidf", "logmel"):
        for one in corpora:
            assert embed_corpus(shop, EmbeddingRequest(spec, one, corpora)).path.is_dir()


KILLED = """
import os, sys

from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.run import run_screening
from undersong.encoders import registry
from undersong.scale import embedding_shards

embedding_shards.SHARD_ROWS = 100
make = registry.make_encoder

def counted(spec, **more):
    encoder = make(spec, **more)
    inner = encoder.encode

    def encode(self, samples):
        if len(samples) == 100:
            counted.calls += 1
            if counted.calls == 3:
                os._exit(137)
        return inner(samples)

    type(encoder).encode = encode
    return encoder

counted.calls = 0
registry.make_encoder = counted
run_screening("organism:pool", "organism:reference", sys.argv[1], ScreeningOptions(axes={"words": "tfidf"}))
"""


def test_a_killed_screening_redoes_one_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from undersong.scale import embedding_shards

    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "out")], check=False)
    assert killed.returncode == 137
    assert not (tmp_path / "out").exists()
    assert len(list(tmp_path.glob("out.*.partial/embeddings/*.shards/rows-*"))) == 3
    monkeypatch.setattr(embedding_shards, "SHARD_ROWS", 100)
    embedded: list[int] = []
    embed = embedding_shards.embed_samples
    monkeypatch.setattr(
        embedding_shards,
        "embed_samples",
        lambda encoder, samples: embedded.append(len(samples)) or embed(encoder, samples),
    )
    screened = screen("organism:pool", "organism:reference", tmp_path / "out", axes={"words": "tfidf"})
    n = len(screened.tables["words"])
    assert sum(embedded) == n - 200 - n % 100  # the last shard, and the two before it, were made
    assert not list(tmp_path.glob("out.*.partial"))
    plain = screen("organism:pool", "organism:reference", tmp_path / "plain", axes={"words": "tfidf"})
    assert plain.tables["words"].equals(screened.tables["words"])
