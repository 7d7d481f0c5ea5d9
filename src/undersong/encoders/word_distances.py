"""Distances by words with weights that are fixed by a reference set, so that a text's distance depends on no other
text.

TF-IDF as in `text.tfidf_encoder`, with two changes. A word that occurs `c` times counts 1 + log(c) times, because
two long texts that say "she" and "her" ten times each would else be near. And document frequencies are of ordinary
texts alone. A word that none of them has gets the largest weight, whether it is in the harm set, in the data or in
held-out ordinary texts. So ordinary texts that the weights were not fitted on lie exactly as far from harm as new
ordinary data would.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array


WORD = re.compile(r"[^\W_]+")


def split_words(text: str) -> list[str]:
    """Words of a text without case and punctuation, one-letter words included."""
    return WORD.findall(text.casefold())


@dataclass(frozen=True, slots=True)
class WordWeights:
    """Inverse document frequencies of `n` texts: log((1 + n) / (1 + frequency)) + 1, as scikit-learn smooths them."""

    n: int
    frequencies: Mapping[str, int]

    def weight(self, word: str) -> float:
        """Weight of a word."""
        return math.log((1 + self.n) / (1 + self.frequencies.get(word, 0))) + 1


def fit_word_weights(texts: Sequence[str]) -> WordWeights:
    """Weights by the document frequencies of `texts`."""
    return WordWeights(len(texts), Counter(word for text in texts for word in set(split_words(text))))


def word_vectors(texts: Sequence[str], weights: WordWeights, vocabulary: Mapping[str, int]) -> csr_array:
    """TF-IDF vectors (n, words + 1) float32 of texts.

    All words outside the vocabulary share the last column, with the length that they have together. Cosines with
    vectors of texts whose words are all in the vocabulary are exact, and the matrix is small. A text without words
    is a zero row.

    Args:
        texts: The texts, (n,).
        weights: Weights of the words.
        vocabulary: Column of each word.
    """
    from scipy.sparse import csr_array

    starts, columns, values = [0], list[int](), list[float]()
    other_column, known = len(vocabulary), dict[str, tuple[int, float]]()
    for text in texts:
        other_square = 0.0
        for word, occurrences in Counter(split_words(text)).items():
            count = 1 + math.log(occurrences)
            entry = known.get(word)
            if entry is None:
                entry = known[word] = vocabulary.get(word, other_column), weights.weight(word)
            column, weight = entry
            if column == other_column:
                other_square += (count * weight) ** 2
            else:
                columns.append(column)
                values.append(count * weight)
        if other_square:
            columns.append(other_column)
            values.append(math.sqrt(other_square))
        starts.append(len(columns))
    shape = (len(texts), len(vocabulary) + 1)
    return csr_array((np.array(values, np.float32), np.array(columns, np.int64), np.array(starts)), shape=shape)


def build_vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """Column of each word of `texts`, in sorted order."""
    return {word: number for number, word in enumerate(sorted({word for text in texts for word in split_words(text)}))}
