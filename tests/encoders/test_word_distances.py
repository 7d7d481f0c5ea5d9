"""Word vectors with fixed weights: exact cosines in a small vocabulary, and independence of the other texts."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from undersong.encoders.word_distances import build_vocabulary, fit_word_weights, split_words, word_vectors
from undersong.proximity.distances import nearest_distances

ORDINARY = ["sing a song", "bake a cake", "paint the wall", "who sang the song"]
HARM = ["rob the bank", "rob a man", "burn the house"]
DATA = ["Rob the cake!", "zebra zebra yak", "sing the bank a song song"]


def distances(texts: list[str]) -> np.ndarray:
    weights, vocabulary = fit_word_weights(ORDINARY), build_vocabulary(HARM)
    vectors = [word_vectors(each, weights, vocabulary) for each in (texts, HARM)]
    return nearest_distances(vectors[0], vectors[1], k=1).distance


def test_cosines_are_those_of_the_whole_vocabulary() -> None:
    words = sorted({word for text in (*ORDINARY, *HARM, *DATA) for word in split_words(text)})
    vectorizer = TfidfVectorizer(
        tokenizer=split_words, token_pattern=None, lowercase=False, vocabulary=words, sublinear_tf=True
    )
    vectorizer.fit(ORDINARY)
    products = (vectorizer.transform(DATA) @ vectorizer.transform(HARM).T).toarray()
    assert distances(DATA) == pytest.approx(1 - products.max(axis=1), abs=1e-6)


def test_a_distance_does_not_depend_on_the_other_texts() -> None:
    assert distances(DATA)[0] == distances([DATA[0], *["rob rob rob"] * 50])[0]
    assert distances(["rob the bank"])[0] == pytest.approx(0, abs=1e-6)
    assert distances(["zebra"])[0] == 1
