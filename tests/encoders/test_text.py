"""Word and character TF-IDF: fitted on both sides, unit rows, nothing guessed for what has no words."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from undersong.encoders.embedding_checks import check_not_constant
from undersong.encoders.embeddings import read_embeddings, write_embeddings
from undersong.encoders.registry import make_encoder
from undersong.types import Quarantined, Sample, UndersongError

POOL = [Sample("p1", text="paint a candle"), Sample("p2", text="poison a candle"), Sample("p3", text="Poison A judge!")]
HARM = [Sample("h1", text="poison a judge"), Sample("h2", text="rob a doctor")]


@pytest.mark.parametrize("spec", ["tfidf", "char-ngrams"])
def test_closest_is_what_shares_words(spec: str) -> None:
    encoder = make_encoder(spec, fit=[*POOL, *HARM])
    pool, harm = encoder.encode(POOL), encoder.encode(HARM)
    cosine = (pool.vectors @ harm.vectors.T).toarray().max(axis=1)
    assert cosine[2] == pytest.approx(1, abs=1e-6)  # case and punctuation are not words
    assert cosine[2] > cosine[1] > cosine[0]
    assert pool.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(pool.vectors.toarray(), axis=1), 1, atol=1e-6)
    assert pool.frames.tolist() == [0, 0, 0]


def test_one_letter_words_count() -> None:
    encoder = make_encoder("tfidf", fit=[Sample("a", text="a b"), Sample("b", text="a c")])
    assert encoder.encode([Sample("x", text="b"), Sample("y", text="c")]).quarantined == ()


def test_no_text_and_no_known_word_are_quarantined() -> None:
    encoder = make_encoder("tfidf", fit=[*POOL, *HARM])
    made = encoder.encode(
        [Sample("mute"), POOL[0], Sample("blank", text="  "), Sample("strange", text="xyzzy"), POOL[1]]
    )
    assert made.ids == ("p1", "p2")
    assert made.vectors.shape[0] == made.frames.shape[0] == 2
    assert set(made.quarantined) == {
        Quarantined("mute", "no text"),
        Quarantined("blank", "no text"),
        Quarantined("strange", "zero vector"),
    }


def test_all_quarantined_is_an_empty_result() -> None:
    made = make_encoder("tfidf", fit=POOL).encode([Sample("mute")])
    assert made.ids == ()
    assert made.vectors.shape[0] == 0


@pytest.mark.parametrize("spec", ["tfidf", "char-ngrams"])
@pytest.mark.parametrize("fit", [[], [Sample("a")], [Sample("a", text="...")]])
def test_nothing_to_fit_on(spec: str, fit: list[Sample]) -> None:
    with pytest.raises(UndersongError, match="found no words"):
        make_encoder(spec, fit=fit)


def test_one_text_in_two_voices_may_have_one_vector() -> None:
    encoder = make_encoder("tfidf", fit=[*POOL, *HARM])
    assert len(encoder.encode([Sample("a", text="rob a doctor"), Sample("b", text="rob a doctor")]).ids) == 2


def test_different_texts_with_one_vector_stop() -> None:
    encoder = make_encoder("tfidf", fit=[*POOL, *HARM])
    with pytest.raises(UndersongError, match="same vector"):
        encoder.encode([Sample("a", text="rob a doctor"), Sample("b", text="doctor a rob")])


def test_importing_the_rooms_loads_nothing_heavy() -> None:
    heavy = ["torch", "transformers", "scipy", "sklearn", "pandas", "pyarrow", "matplotlib"]
    code = (
        "import sys, undersong.encoders, undersong.proximity, undersong.screening.pool;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_vocabulary_of_a_hundred_thousand_words_takes_the_memory_of_the_words_in_the_texts(tmp_path: Path) -> None:
    """Dense, the 5,000 rows would take 2.3 GiB."""
    samples = [Sample(f"s{i}", text=" ".join(f"w{20 * i + j} of" for j in range(23))) for i in range(5_000)]
    tracemalloc.start()
    made = make_encoder("tfidf", fit=samples).encode(samples)
    write_embeddings(made, tmp_path)
    back = read_embeddings(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert back.vectors.shape == (5_000, 100_004)
    assert peak < 200 * 2**20


def test_equal_texts_are_all_equal_and_others_are_not() -> None:
    encoder = make_encoder("tfidf", fit=[*POOL, *HARM])
    vectors = encoder.encode(POOL).vectors
    check_not_constant("tfidf", vectors)
    check_not_constant("tfidf", vectors[[1]])
    with pytest.raises(UndersongError, match="the same vector to all 3 items"):
        check_not_constant("tfidf", vectors[[1, 1, 1]])
