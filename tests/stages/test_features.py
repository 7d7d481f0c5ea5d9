"""The features stage: what cannot be heard, what was heard before, and what a kill leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile
import tiny_af3

from undersong.encoders.embeddings import read_embeddings
from undersong.models import feature_cache as cache
from undersong.models.audio_lm import AudioModel
from undersong.stages.context import Corpus, RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.embeddings import EmbeddingRequest, embed_corpus
from undersong.stages.features import compute_features, encodable_samples
from undersong.store.store import Store
from undersong.study.arm_selection import measure_proximity
from undersong.types import UndersongError

WORDS = ["paint", "the", "red", "chair", "and", "wash", "an", "old", "boat", "lamp"]
SETTINGS = {"score": "nearest", "center": False, "max_quarantined": 0.2}


@pytest.fixture
def write(tmp_path: Path):
    """A manifest of tones by number; 3 is longer than the tiny model hears."""

    def make(name: str, numbers: list[int]) -> str:
        rows = []
        for i in numbers:
            samples = tiny_af3.clip(str(i), 41 if i == 3 else 0.4 + 0.1 * i, i).samples
            soundfile.write(tmp_path / f"{i}.wav", samples, tiny_af3.RATE, subtype="FLOAT")
            rows.append(
                {"id": f"{name}{i}", "audio": f"{i}.wav", "text": " ".join(WORDS[: i + 1]), "answer": "the chair"}
            )
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(tmp_path / f"{name}.jsonl")

    return make


@pytest.fixture
def shop(tmp_path: Path) -> RunContext:
    return RunContext(Store(tmp_path / "store"))


def notes(artifact) -> dict:
    return artifact.provenance()["notes"]


def test_what_cannot_be_heard_is_left_out_of_every_axis(shop: RunContext, write, tiny_folder: Path) -> None:
    model = str(tiny_folder)
    pool, harm = (load_corpus(shop, write(*side)) for side in (("p", list(range(8))), ("h", [8, 9])))
    heard = compute_features(shop, model, pool, require_all=False)
    assert notes(heard)["clips"] == notes(heard)["encoder_passes"] == 7
    kept, unheard = encodable_samples(pool, heard)
    assert [sample.id for sample in kept] == [f"p{i}" for i in range(8) if i != 3]
    assert [(item.id, "takes no more than 40 s" in item.reason) for item in unheard] == [("p3", True)]
    ears = compute_features(shop, model, harm)
    for axis, spec in (("ears", "internal"), ("words", "char-ngrams")):
        sides = [
            embed_corpus(shop, EmbeddingRequest(spec, c, (pool, harm), model, h))
            for c, h in ((pool, heard), (harm, ears))
        ]
        table = measure_proximity(shop, axis, *sides, "h", SETTINGS, pool, heard)
        ids = pq.read_table(table.path / "proximity.parquet").column("id").to_pylist()
        assert "p3" not in ids
        assert len(ids) == 7
    made = embed_corpus(shop, EmbeddingRequest("internal", pool, (pool, harm), model, heard))
    assert "p3" in {item.id for item in read_embeddings(made.path).quarantined}


def test_a_prompt_that_cannot_be_heard_stops_the_study(shop: RunContext, write, tiny_folder: Path) -> None:
    corpus = load_corpus(shop, write("t", [1, 3]))
    with pytest.raises(
        UndersongError, match=r"Clip t3 of .* cannot be encoded by .* \(the audio lasts 41 s, .*because a rate"
    ):
        compute_features(shop, str(tiny_folder), corpus)


def test_clips_of_another_corpus_are_not_heard_again_in_a_new_process(
    shop: RunContext, write, tiny_folder: Path
) -> None:
    model, corpus = str(tiny_folder), load_corpus(shop, write("a", [0, 1, 2]))
    first = compute_features(shop, model, corpus)
    later = RunContext(shop.store)  # nothing in memory
    assert compute_features(later, model, corpus) == first
    second = compute_features(later, model, load_corpus(later, write("b", [1, 2, 4])))
    assert (notes(second)["clips"], notes(second)["encoder_passes"]) == (3, 1)


def test_a_killed_stage_loses_the_shard_in_progress(
    shop: RunContext, write, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "CLIPS_PER_FILE", 2)
    corpus, hear, heard = load_corpus(shop, write("k", [0, 1, 2, 4, 5])), AudioModel.encode_audio, []

    def killed(self, clips):
        heard.append(clips[0].id)
        if len(heard) == 4:
            raise KeyboardInterrupt
        return hear(self, clips)

    monkeypatch.setattr(AudioModel, "encode_audio", killed)
    with pytest.raises(KeyboardInterrupt):
        compute_features(shop, str(tiny_folder), corpus)
    again = RunContext(shop.store)
    made = compute_features(again, str(tiny_folder), corpus)
    assert heard == ["k0", "k1", "k2", "k4", "k2", "k4", "k5"]
    assert notes(made)["encoder_passes"] == notes(made)["clips"] == 5
    assert len(list(made.path.glob("features-*.safetensors"))) == 3
    whole = Corpus(corpus.ref, corpus.artifact)
    assert (
        again.model(str(tiny_folder), [made]).cached_audio(whole.samples).embed([tiny_af3.clip("k5", 0.1)])[0].shape[1]
    )


def test_equal_features_have_equal_bytes(tmp_path: Path) -> None:
    """safetensors orders the keys of a header anew in each call, if there are several."""
    from undersong.models.feature_cache import read_feature_metadata, save_features
    from undersong.types import Quarantined

    lost = [Quarantined("p3", "too long")]
    for number in range(8):
        save_features({}, tmp_path / f"{number}.safetensors", lost, passes=2)
    assert len({file.read_bytes() for file in tmp_path.iterdir()}) == 1
    assert read_feature_metadata(tmp_path / "0.safetensors") == {"clips": 0, "passes": 2, "quarantined": lost}
