"""User-defined encoders (`python:my_encoder.py:bands`): every sample must be embedded or quarantined exactly once, and
its vector is validated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from undersong.encoders.batching import ProgressCallback
from undersong.encoders.embedding_checks import validate_embeddings
from undersong.store.user_code import load_code
from undersong.types import Embeddings, Encoder, Sample, UndersongError


@dataclass(slots=True)
class CustomEncoder:
    """A user's encoder `inner`, under the name from the study or command. `progress` is passed on if `inner` has it."""

    name: str
    inner: Encoder
    progress: ProgressCallback | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed samples, in the order of `inner`; invalid vectors are quarantined.

        Raises UndersongError for missing, repeated or unknown items, vectors that are not one row per item, and vectors
        that are all equal although the texts differ.
        """
        if hasattr(self.inner, "progress"):
            self.inner.progress = self.progress
        embeddings = self.inner.encode(samples)
        accounted_ids = sorted((*embeddings.ids, *(item.id for item in embeddings.quarantined)))
        if accounted_ids != sorted(sample.id for sample in samples):
            raise UndersongError(
                f"Encoder {self.name} accounted for {len(accounted_ids)} items where it was given {len(samples)}, or "
                "for others; embed or quarantine every one of them, once."
            )
        if (
            embeddings.vectors.ndim != 2
            or embeddings.vectors.shape[0] != len(embeddings.ids)
            or len(embeddings.frames) != len(embeddings.ids)
        ):
            raise UndersongError(
                f"Encoder {self.name} gave vectors of shape {embeddings.vectors.shape} and {len(embeddings.frames)} "
                f"counts of frames for {len(embeddings.ids)} items; give one row and one count per item."
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
    """Make the encoder of a user's function."""
    inner = load_code(ref)
    if not callable(getattr(inner, "encode", None)):
        raise UndersongError(f"{ref} returned no encoder but a {type(inner).__name__}; give it name and encode().")
    return CustomEncoder(name, inner)
