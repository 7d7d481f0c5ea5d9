"""Semantic encoders that need no download: word TF-IDF, and character n-grams beside it.

In a closed vocabulary word TF-IDF is near-perfect by construction; character n-grams show how much of that is the
vocabulary.  Both are fitted on exactly the texts they are given: pass pool and reference harm set together, or words
of one side are unknown and weigh nothing.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.checks import validate_embeddings
from undersong.types import Embeddings, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from sklearn.feature_extraction.text import TfidfVectorizer


WORD = re.compile(r"[^\W_]+")


@dataclass(slots=True)
class TextEncoder:
    """An Encoder of transcripts by a fitted vectorizer."""

    name: str
    vectorizer: TfidfVectorizer

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Samples -> dense unit rows (n, vocabulary) float32, frames 0; without text or known words: quarantined."""
        with_text = [sample for sample in samples if _sample_text(sample)]
        quarantined = [Quarantined(sample.id, "no text") for sample in samples if not _sample_text(sample)]
        texts = [_sample_text(sample) for sample in with_text]
        if texts:
            vectors = self.vectorizer.transform(texts).toarray()
        else:
            vectors = np.zeros((0, len(self.vectorizer.vocabulary_)), dtype=np.float32)
        ids = [sample.id for sample in with_text]
        return validate_embeddings(
            self.name, ids, vectors, np.zeros(len(ids)), quarantined, allow_equal=len(set(texts)) <= 1
        )


def tfidf_encoder(fit: Sequence[Sample]) -> TextEncoder:
    """Word-level TF-IDF fitted on the texts of `fit`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return _fit_vectorizer(
        "tfidf",
        TfidfVectorizer(preprocessor=_normalize_text, tokenizer=str.split, token_pattern=None, dtype=np.float32),
        fit,
    )


def char_ngram_encoder(fit: Sequence[Sample]) -> TextEncoder:
    """TF-IDF over character 3- and 4-grams inside word boundaries, fitted on the texts of `fit`."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(preprocessor=_normalize_text, analyzer="char_wb", ngram_range=(3, 4), dtype=np.float32)
    return _fit_vectorizer("char-ngrams", vectorizer, fit)


def _fit_vectorizer(name: str, vectorizer: TfidfVectorizer, fit: Sequence[Sample]) -> TextEncoder:
    texts = [text for sample in fit if (text := _sample_text(sample))]
    analyze = vectorizer.build_analyzer()
    if not any(analyze(text) for text in texts):
        raise UndersongError(f"Encoder {name} found no words in {len(fit)} items; give the manifest a `text` column.")
    return TextEncoder(name, vectorizer.fit(texts))


def _normalize_text(text: str) -> str:
    """The words of a text, one-letter words too; case and punctuation are not spoken."""
    return " ".join(WORD.findall(text.casefold()))


def _sample_text(sample: Sample) -> str:
    return (sample.text or "").strip()
