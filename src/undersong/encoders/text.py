"""Text encoders: word TF-IDF, character n-grams, and sentence-transformers models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.checkpoint import CHECKPOINT_FILES, checkpoint_folder
from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.sparse_vectors import canonical_sparse
from undersong.encoders.spec import DEFAULT_SENTENCE_MODEL
from undersong.encoders.word_distances import split_words
from undersong.escaping import describe_error
from undersong.extras import install_hint
from undersong.models.out_of_memory import halve_on_oom
from undersong.types import Embeddings, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer


@dataclass(slots=True)
class TextEncoder:
    """An encoder of transcripts by a fitted vectorizer."""

    name: str
    vectorizer: TfidfVectorizer

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed texts as sparse unit rows (n, vocabulary) float32 with frames 0. Items without known words are
        quarantined.
        """
        with_text = [sample for sample in samples if _sample_text(sample)]
        quarantined = [Quarantined(sample.id, "no text") for sample in samples if not _sample_text(sample)]
        texts = [_sample_text(sample) for sample in with_text]
        width = len(self.vectorizer.vocabulary_)
        vectors = canonical_sparse(self.vectorizer.transform(texts) if texts else np.zeros((0, width), np.float32))
        ids = [sample.id for sample in with_text]
        return validate_embeddings(
            self.name, ids, vectors, np.zeros(len(ids)), quarantined, allow_equal=len(set(texts)) <= 1
        )


def tfidf_encoder(fit: Sequence[Sample]) -> TextEncoder:
    """Word-level TF-IDF, fitted on the texts of `fit`."""
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
    """Words of a text, including one-letter words, without case and punctuation."""
    return " ".join(split_words(text))


def _sample_text(sample: Sample) -> str:
    return (sample.text or "").strip()


# Modules behind the network keep weights in subfolders, and some tokenizers are a sentencepiece model.
SENTENCE_MODEL_FILES = (*CHECKPOINT_FILES, "*/model.safetensors", "*.model")
LIBRARY_PREFIX = "sentence_transformers."
TEXTS_PER_BLOCK = 1_024  # texts sorted by length together


@dataclass(slots=True)
class SentenceEncoder:
    """An encoder of transcripts by a sentence-transformers model.

    `batch` texts of similar length are embedded together; the number is halved when memory runs out.
    """

    name: str
    model: SentenceTransformer
    batch: int = 64
    progress: ProgressCallback | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed texts to (n, dim) float32 with the model's own pooling and frames 0. Items without a text are
        quarantined.

        A text longer than the model's limit is embedded in pieces of whole words, and the pieces are averaged with the
        number of their words as weights. The library alone would silently drop its end.
        """
        texts = [(sample.id, text) for sample in samples if (text := (sample.text or "").strip())]
        quarantined = [Quarantined(sample.id, "no text") for sample in samples if not (sample.text or "").strip()]
        vectors: dict[str, np.ndarray] = {}
        timer = start_progress(len(samples), self.progress)
        for start in range(0, len(texts), TEXTS_PER_BLOCK):
            block = sorted(texts[start : start + TEXTS_PER_BLOCK], key=lambda item: len(item[1]))
            for batch, batch_vectors in halve_on_oom(self._vectors, block, self.batch):
                if batch_vectors is None:
                    quarantined.append(
                        Quarantined(batch[0][0], f"out of memory: a text of {len(batch[0][1])} characters")
                    )
                else:
                    vectors.update(zip((id for id, _ in batch), batch_vectors, strict=True))
                timer.update(len(vectors) + len(quarantined))
        timer.update(len(samples))
        ids = [id for id, _ in texts if id in vectors]
        matrix = np.stack([vectors[id] for id in ids]) if ids else np.zeros((0, 0), dtype=np.float32)
        same_text = len({text for id, text in texts if id in vectors}) <= 1
        return validate_embeddings(self.name, ids, matrix, np.zeros(len(ids)), quarantined, allow_equal=same_text)

    def _vectors(self, items: Sequence[tuple[str, str]]) -> list[np.ndarray]:
        """Vector (dim,) float32 of each (id, text)."""
        pieces = [(row, piece) for row, (_, text) in enumerate(items) for piece in self._pieces(text)]
        piece_vectors = self.model.encode(
            [piece for _, piece in pieces], batch_size=len(pieces), show_progress_bar=False, convert_to_numpy=True
        ).astype(np.float64)
        if not (finite := np.isfinite(piece_vectors).all(1)).all():
            from undersong.models.finite import non_finite_error

            row, piece = pieces[int(finite.argmin())]
            raise non_finite_error(self.model, self.name, f"sample {items[row][0]}", lambda: self.model.encode([piece]))
        sums = np.zeros((len(items), piece_vectors.shape[1]))
        weights = np.zeros(len(items))
        for (row, piece), vector in zip(pieces, piece_vectors):
            weight = len(piece.split())
            sums[row] += weight * vector
            weights[row] += weight
        return list((sums / weights[:, None]).astype(np.float32))

    def _pieces(self, text: str) -> list[str]:
        """The text, or, if it has more tokens than the model's limit, runs of whole words that fit."""
        tokenizer, max_tokens = self.model.tokenizer, self.model.max_seq_length
        if max_tokens is None or len(tokenizer(text)["input_ids"]) <= max_tokens:
            return [text]
        piece_tokens = max_tokens - tokenizer.num_special_tokens_to_add()
        words = text.split()
        pieces: list[list[str]] = [[]]
        token_count = 0
        for word, tokens in zip(words, tokenizer(words, add_special_tokens=False)["input_ids"]):
            if pieces[-1] and token_count + len(tokens) > piece_tokens:
                pieces.append([])
                token_count = 0
            pieces[-1].append(word)
            token_count += len(tokens)
        return [" ".join(piece) for piece in pieces]


def sentence_encoder(
    ref: str | Path = DEFAULT_SENTENCE_MODEL, *, device: str = "cpu", batch: int = 64
) -> SentenceEncoder:
    """Load the sentence-transformers model of a folder or a Hugging Face id, in float32.

    Raises UndersongError if the extra is not installed, the model needs its own code, its weights are not safetensors,
    or it cannot be reached.
    """
    check_sentence_transformers(f"text:{ref}")
    from undersong.models.load import check_device
    from undersong.models.pretrained import SAFE_LOADING, load_pretrained

    check_device(device)
    folder = checkpoint_folder(ref, SENTENCE_MODEL_FILES)
    _check_modules(folder)
    from sentence_transformers import SentenceTransformer

    try:
        model = load_pretrained(
            SentenceTransformer,
            folder,
            str(ref),
            device=device,
            local_files_only=True,
            model_kwargs={**SAFE_LOADING, "dtype": "float32"},
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"{ref} cannot be loaded by sentence-transformers ({reason}); give a complete one."
        ) from error
    return SentenceEncoder(f"text:{folder.name if Path(ref).is_dir() else ref}", model, batch)


def check_sentence_transformers(spec: str) -> None:
    """Raise UndersongError if sentence-transformers is not installed."""
    if find_spec("sentence_transformers") is None:
        raise UndersongError(f"The encoder {spec} needs sentence-transformers; {install_hint('encoders')}.")


def _check_modules(folder: Path) -> None:
    """Allow only modules of the library itself: before version 6 it ran a local folder's own code without asking."""
    file = folder / "modules.json"
    try:
        modules = json.loads(file.read_text(encoding="utf-8"))
        module_types = [str(module["type"]) for module in modules]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UndersongError(
            f"No modules.json can be read in {folder} ({error}), which says how a model pools its tokens; give a "
            "sentence-transformers model."
        ) from None
    if foreign := [module_type for module_type in module_types if not module_type.startswith(LIBRARY_PREFIX)]:
        raise UndersongError(f"{folder} needs its own code ({foreign[0]}), which is never run; give another model.")
