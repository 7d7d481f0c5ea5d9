"""Word and character TF-IDF: fitted on both sides, unit rows, nothing guessed for what has no words."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from undersong.encoders import make_encoder
from undersong.types import Quarantined, Sample, UndersongError

POOL = [Sample("p1", text="paint a candle"), Sample("p2", text="poison a candle"), Sample("p3", text="Poison A judge!")]
HARM = [Sample("h1", text="poison a judge"), Sample("h2", text="rob a doctor")]


@pytest.mark.parametrize("spec", ["tfidf", "char-ngrams"])
def test_closest_is_what_shares_words(spec: str) -> None:
    encoder = make_encoder(spec, fit=[*POOL, *HARM])
    pool, harm = encoder.encode(POOL), encoder.encode(HARM)
    cosine = (pool.vectors @ harm.vectors.T).max(axis=1)
    assert cosine[2] == pytest.approx(1, abs=1e-6)  # case and punctuation are not words
    assert cosine[2] > cosine[1] > cosine[0]
    assert pool.vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(pool.vectors, axis=1), 1, atol=1e-6)
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
    assert len(made.vectors) == 0


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
        "import sys, undersong.encoders, undersong.proximity, undersong.pipeline.screening;"
        f"print([m for m in {heavy} if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
