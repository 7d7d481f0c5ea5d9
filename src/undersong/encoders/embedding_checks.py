"""Checks of embeddings: zero, NaN and infinite vectors are quarantined, and constant encoders are rejected."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from undersong.encoders.sparse_vectors import canonical_sparse, is_sparse, rows_are_equal, sparse_defects
from undersong.types import Embeddings, Quarantined, UndersongError, Vectors

# Vectors that differ by no more than the float32 rounding of their largest entry count as equal.
EQUALITY_TOLERANCE = 8 * float(np.finfo(np.float32).eps)


def vector_defect(vector: np.ndarray) -> str | None:
    """Defect of a vector: `zero vector`, `NaN in vector` or `infinite value in vector`; None if it has none."""
    if np.isfinite(vector).all():
        return None if vector.any() else "zero vector"
    return "NaN in vector" if np.isnan(vector).any() else "infinite value in vector"


def validate_embeddings(
    name: str,
    ids: Sequence[str],
    vectors: Vectors,
    frames: Sequence[int] | np.ndarray,
    quarantined: Sequence[Quarantined] = (),
    *,
    allow_equal: bool = False,
) -> Embeddings:
    """Build embeddings of the valid vectors and quarantine the others (rule 2 in docs/contributing/rules.md).

    Args:
        name: Name of the encoder in errors.
        ids: Ids of the items.
        vectors: One row per item, (n, dim).
        frames: Valid frames per item, (n,).
        quarantined: Items that were left out before.
        allow_equal: Accept equal vectors, because the inputs were equal (one text in several voices).

    Raises:
        UndersongError: Two or more vectors are left and all of them are equal.
    """
    reasons = sparse_defects(vectors) if is_sparse(vectors) else [vector_defect(vector) for vector in vectors]
    invalid = [Quarantined(id, reason) for id, reason in zip(ids, reasons) if reason]
    valid = np.array([reason is None for reason in reasons], dtype=bool)
    # A boolean index copies the whole matrix, so it is used only if rows must go.
    valid_vectors = vectors if valid.all() else vectors[valid]
    valid_vectors = canonical_sparse(valid_vectors) if is_sparse(vectors) else np.asarray(valid_vectors, np.float32)
    if not allow_equal:
        check_not_constant(name, valid_vectors)
    return Embeddings(
        ids=tuple(id for id, reason in zip(ids, reasons) if reason is None),
        vectors=valid_vectors,
        frames=np.asarray(frames, dtype=np.int64)[valid],
        quarantined=(*quarantined, *invalid),
    )


def check_not_constant(name: str, vectors: Vectors) -> None:
    """Raise UndersongError if two or more `vectors` (n, dim) are all equal; nothing can be ranked by them."""
    if vectors.shape[0] > 1 and all_rows_equal(vectors):
        raise UndersongError(
            f"Encoder {name} gave the same vector to all {vectors.shape[0]} items, so no distance means anything; "
            "check the encoder's weights and the audio files, or use another encoder."
        )


def all_rows_equal(vectors: Vectors) -> bool:
    """True if all rows are equal up to rounding."""
    if is_sparse(vectors):
        return rows_are_equal(vectors, EQUALITY_TOLERANCE)
    first = vectors[0]
    tolerance = EQUALITY_TOLERANCE * float(np.abs(first).max())
    return all(np.abs(vector - first).max() <= tolerance for vector in vectors[1:])
