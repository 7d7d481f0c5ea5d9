"""The shared guard: nothing unsound becomes a vector, and nothing is lost without a reason."""

from __future__ import annotations

import numpy as np
import pytest

from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.registry import make_encoder
from undersong.encoders.spec import ENCODERS, PREDICTORS
from undersong.types import Quarantined, Sample, UndersongError

VECTORS = np.array([[1, 2], [0, 0], [np.nan, 1], [np.inf, 1], [3, 1]], dtype=np.float32)


def test_unsound_vectors_are_quarantined_with_reason() -> None:
    before = Quarantined("x", "no text")
    made = validate_embeddings("e", ["a", "b", "c", "d", "e"], VECTORS, [1, 2, 3, 4, 5], [before])
    assert made.ids == ("a", "e")
    assert made.frames.tolist() == [1, 5]
    assert np.array_equal(made.vectors, VECTORS[[0, 4]])
    assert made.quarantined == (
        before,
        Quarantined("b", "zero vector"),
        Quarantined("c", "NaN in vector"),
        Quarantined("d", "infinite value in vector"),
    )


@pytest.mark.parametrize("jitter", [0.0, 1e-8])
def test_equal_vectors_stop(jitter: float) -> None:
    vectors = np.full((4, 3), 0.5, np.float32) + np.float32(jitter) * np.arange(4, dtype=np.float32)[:, None]
    with pytest.raises(UndersongError, match="same vector to all 4 items"):
        validate_embeddings("constant", list("abcd"), vectors, [0] * 4)
    assert validate_embeddings("constant", list("abcd"), vectors, [0] * 4, allow_equal=True).ids == tuple("abcd")


def test_close_vectors_are_not_equal() -> None:
    vectors = np.full((3, 2), 30.0, np.float32)
    vectors[2, 0] += 1e-3  # a large common mean hides a real difference
    assert len(validate_embeddings("e", list("abc"), vectors, [0] * 3).ids) == 3


def test_one_item_is_not_constant() -> None:
    assert validate_embeddings("e", ["a"], np.ones((1, 2), np.float32), [1]).ids == ("a",)


@pytest.mark.parametrize(("spec", "near"), [("tfdf", "tfidf"), ("logmels", "logmel"), ("wisper:here", "whisper")])
def test_unknown_encoder_names_the_nearest(spec: str, near: str) -> None:
    with pytest.raises(UndersongError, match=f"nearest known is '{near}'"):
        make_encoder(spec, fit=[])


@pytest.mark.parametrize(
    "spec", ["whisper", "whisper:", "logmel:x", "internal", "gradients", "gradients:none", "influence"]
)
def test_encoder_without_what_it_needs(spec: str) -> None:
    with pytest.raises(UndersongError):
        make_encoder(spec, fit=[])


def test_names_are_the_specs() -> None:
    fit = [Sample("a", text="one two"), Sample("b", text="three")]
    for spec in set(ENCODERS) - {
        "internal",
        "whisper",
        "speech",
        "speaker",
        "text",
        "gradients",
        "python",
        *PREDICTORS,
    }:  # weights, code
        assert make_encoder(spec, fit=fit).name == spec
