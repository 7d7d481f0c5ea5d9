"""What a screening says beside its ranking, and that reference encoders by transformers can be axes of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_speech
from screen_call import screen

from undersong.corpora.manifest import filter_samples, write_manifest
from undersong.corpora.registry import open_corpus
from undersong.stages.context import RunContext
from undersong.stages.corpus import load_corpus
from undersong.stages.embeddings import EmbeddingRequest, embed_corpus
from undersong.store.store import Store
from undersong.types import UndersongError


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two speakers of the packaged pool on two reference axes and the organism's own, beside unseen benign speech."""
    folder = tmp_path_factory.mktemp("screened")
    out = folder / "out"
    write_manifest(
        filter_samples(open_corpus("organism:pool").samples, {"speaker": ["A", "E"]}), folder / "pool.parquet"
    )
    screened = screen(
        folder / "pool.parquet",
        "organism:reference",
        out,
        axes={"words": "tfidf", "sound": "logmel", "ears": "internal"},
        select_axis="words",  # which is not shown to tell harm from this benign speech
        keep="closest:0.25+speaker<=30",
        benign_reference="organism:unseen-benign",
        model="organism:kimi",
    )
    written = json.loads((out / "screening.json").read_text())
    assert written == json.loads(json.dumps(screened.report))
    return written


def test_axes_agree_or_not_with_intervals(report: dict[str, Any]) -> None:
    pairs = {(pair["a"], pair["b"]): pair for pair in report["axis_agreement"]}
    assert set(pairs) == {("words", "sound"), ("words", "ears"), ("sound", "ears")}
    for pair in pairs.values():
        assert pair["n"] == 216
        assert pair["clusters"] == 108  # requests, not clips
        assert pair["spearman"]["low"] <= pair["spearman"]["value"] <= pair["spearman"]["high"]


def test_the_fingerprint_sets_every_axis_against_the_models_own(report: dict[str, Any]) -> None:
    (found,) = report["axis_fingerprints"]
    assert found["internal"] == "ears"
    assert {pair["a"] for pair in found["pairs"]} == {"words", "sound"}
    assert set(found["hears"]) >= {"spearman"}


def test_the_kept_set_is_described_beside_its_pool(report: dict[str, Any]) -> None:
    (one,) = report["selection"].values()
    assert one["rule"] == "closest:0.25+speaker<=30"
    assert one["balance"]["speaker"]
    assert one["k"] <= 54


def test_the_screening_score_is_against_harmless_speech(report: dict[str, Any]) -> None:
    assert [one["axis"] for one in report["screening_scores"]] == ["words", "sound", "ears"]
    for one in report["screening_scores"]:
        assert one["name"] == "screening score"
        assert -1 <= one["value"]["value"] <= 1
        assert one["n"][0] == 216


def test_a_speech_encoder_is_an_axis_of_a_study(tmp_path: Path) -> None:
    """One artifact for every spelling of the same encoder, another for other options."""
    folder = tiny_speech.save("wavlm-base", tmp_path / "wavlm")
    shop = RunContext(Store(tmp_path / "store"))
    corpus = load_corpus(shop, "organism:unseen-benign")

    def embedded(options: str) -> str:
        return embed_corpus(shop, EmbeddingRequest(f"speech:{folder}{options}", corpus, [corpus], "organism:af3")).hash

    assert embedded("") == embedded(",layer=last,pool=mean") != embedded(",pool=mean+std")


def test_ready_harmless_speech_must_come_as_the_others(tmp_path: Path) -> None:
    pool = load_corpus(RunContext(Store(tmp_path / "store")), "organism:unseen-benign")
    with pytest.raises(UndersongError, match="benign reference"):
        screen(
            _vectors(tmp_path / "p.parquet", "p", 8),
            _vectors(tmp_path / "h.parquet", "h", 3),
            tmp_path / "out",
            benign_reference=str(pool.artifact.path),
        )


def _vectors(path: Path, prefix: str, count: int) -> Path:
    import numpy as np
    import pyarrow.parquet as pq

    from undersong.encoders.embeddings import embeddings_table

    rows = np.random.default_rng(count).standard_normal((count, 4)).astype(np.float32)
    pq.write_table(embeddings_table([f"{prefix}{i}" for i in range(count)], rows, np.ones(count)), path)
    return path


def test_padding_is_checked_on_the_users_own_clips(tmp_path: Path) -> None:
    folder = tiny_speech.save("whisper", tmp_path / "whisper")
    how = {"axes": {"mixed": f"speech:{folder},layer=1,pad=bucket"}, "check_padding": True}
    screened = screen("organism:unseen-benign", "organism:unseen-harm", tmp_path / "out", **how)
    (found,) = screened.report["padding"].values()
    assert found["clips"] == len(screened.tables["mixed"])
    assert 0 < found["spearman"] <= 1
    assert found["k"] == int(0.25 * found["clips"])
    with pytest.raises(UndersongError, match="add a speech encoder of the Whisper class"):
        screen(
            "organism:unseen-benign", "organism:unseen-harm", tmp_path / "no", axes={"a": "logmel"}, check_padding=True
        )
