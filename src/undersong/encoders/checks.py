"""The one way vectors become `Embeddings`: what cannot be trusted is quarantined with its reason, never guessed.

A zero vector would have cosine distance 1 from everything and so look "safest"; a constant encoder would rank a pool by
its file order.  Both happened in published work.  Knows vectors, not where they came from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from undersong.types import Embeddings, Quarantined, UndersongError

# Vectors that differ by no more than float32 rounding of their largest entry are one vector.
EQUALITY_TOLERANCE = 8 * float(np.finfo(np.float32).eps)


def vector_defect(vector: np.ndarray) -> str | None:
    """Why a vector cannot be used: `zero vector`, `NaN in vector`, `infinite value in vector`; None: it can."""
    if np.isfinite(vector).all():
        return None if vector.any() else "zero vector"
    return "NaN in vector" if np.isnan(vector).any() else "infinite value in vector"


def validate_embeddings(
    name: str,
    ids: Sequence[str],
    vectors: np.ndarray,
    frames: Sequence[int] | np.ndarray,
    quarantined: Sequence[Quarantined] = (),
    *,
    allow_equal: bool = False,
) -> Embeddings:
    """Embeddings of what is sound; the rest is quarantined (DESIGN rule 2).

    `vectors` (n, dim) and `frames` (n,) belong to `ids`; `quarantined` are the items already left out.  `alike` says
    that equal vectors may be right, because the inputs were the same (one text in several voices).
    Raises UndersongError when two or more vectors are left and all of them are equal.
    """
    reasons = [vector_defect(vector) for vector in vectors]
    invalid = [Quarantined(id, reason) for id, reason in zip(ids, reasons) if reason]
    valid = np.array([reason is None for reason in reasons], dtype=bool)
    # A boolean index copies the whole matrix: only where something must go.
    valid_vectors = np.asarray(vectors if valid.all() else vectors[valid], dtype=np.float32)
    if not allow_equal:
        check_not_constant(name, valid_vectors)
    return Embeddings(
        ids=tuple(id for id, reason in zip(ids, reasons) if reason is None),
        vectors=valid_vectors,
        frames=np.asarray(frames, dtype=np.int64)[valid],
        quarantined=(*quarantined, *invalid),
    )


def check_not_constant(name: str, vectors: np.ndarray) -> None:
    """Raises UndersongError when all of two or more `vectors` (n, dim) are equal: nothing can be ranked by them."""
    if len(vectors) < 2:
        return
    first = vectors[0]
    tolerance = EQUALITY_TOLERANCE * float(np.abs(first).max())
    if all(np.abs(vector - first).max() <= tolerance for vector in vectors[1:]):
        raise UndersongError(
            f"Encoder {name} gave the same vector to all {len(vectors)} items, so no distance means anything; "
            "check the encoder's weights and the audio files, or use another encoder."
        )
