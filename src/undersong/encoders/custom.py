"""A user-defined encoder (`python:my_encoder.py:bands`): every sample must be embedded or quarantined exactly once,
and its vectors are validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.encoders.batching import ProgressCallback
from undersong.encoders.embeddings import validate_embeddings
from undersong.store.user_code import load_code
from undersong.types import Embeddings, Encoder, Sample, UndersongError


@dataclass(slots=True)
class CustomEncoder:
    """`inner` under the name that a study or a command gives it; `progress` goes on to it where it has one."""

    name: str
    inner: Encoder
    progress: ProgressCallback | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Samples -> vectors, in the order that `inner` gives; unsound ones are quarantined.

        Raises UndersongError for items that are missing, double or not asked for, vectors that are no matrix of a row
        an item, and vectors that are all equal though the items' texts differ.
        """
        if hasattr(self.inner, "progress"):
            self.inner.progress = self.progress
        embeddings = self.inner.encode(samples)
        accounted_ids = sorted((*embeddings.ids, *(item.id for item in embeddings.quarantined)))
        if accounted_ids != sorted(sample.id for sample in samples):
            raise UndersongError(
                f"Encoder {self.name} accounted for {len(accounted_ids)} items where it was given {len(samples)}, or for "
                "others; embed or quarantine every one of them, once."
            )
        if (
            embeddings.vectors.ndim != 2
            or len(embeddings.vectors) != len(embeddings.ids)
            or len(embeddings.frames) != len(embeddings.ids)
        ):
            raise UndersongError(
                f"Encoder {self.name} gave vectors of shape {embeddings.vectors.shape} and {len(embeddings.frames)} counts of "
                f"frames for {len(embeddings.ids)} items; give one row and one count an item."
            )
        same_text = len({sample.text for sample in samples}) <= 1
        return validate_embeddings(
            self.name,
            embeddings.ids,
            embeddings.vectors,
            embeddings.frames,
            embeddings.quarantined,
            allow_equal=same_text,
        )


def custom_encoder(name: str, ref: str) -> CustomEncoder:
    """The encoder that the named function makes."""
    inner = load_code(ref)
    if not callable(getattr(inner, "encode", None)):
        raise UndersongError(f"{ref} made no encoder but a {type(inner).__name__}; give it name and encode().")
    return CustomEncoder(name, inner)
