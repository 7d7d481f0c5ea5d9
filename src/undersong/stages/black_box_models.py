"""Black-box models, known by their replies only: served behind an address (`served:`) or recorded in a table
(`recorded:`).

They can be evaluated, but neither tuned nor explained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

from undersong.types import Prompt, Reply

SERVED, RECORDED = "served:", "recorded:"


class BlackBoxModel(Protocol):
    """Model that replies to prompts."""

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """Generate one reply per prompt, in order, as `AudioModel.generate`; `limit` is the maximum number of new
        tokens."""
        ...


def is_black_box(ref: str) -> bool:
    """True if only the replies of a model are available."""
    return ref.startswith((SERVED, RECORDED))


def trainable_models(refs: Iterable[str]) -> list[str]:
    """Models that arms can be trained on: all but black-box models."""
    return [ref for ref in refs if not is_black_box(ref)]


def load_black_box_model(ref: str) -> BlackBoxModel:
    """Load the black-box model of a reference.

    Raises:
        UndersongError: The address is invalid, or the file cannot be read.
    """
    if ref.startswith(SERVED):
        from undersong.evaluation.serving.served_model import served_model

        return served_model(ref)
    from undersong.evaluation.serving.recorded_model import recorded_model

    return recorded_model(ref)


def model_identity_hash(ref: str) -> str:
    """Hash that identifies a model in the cache key of its replies: of its weights, or of the recorded table.

    For a served model it is the hash of its name and address only, because its weights are unknown.
    """
    if ref.startswith(SERVED):
        return hashlib.sha256(ref.encode()).hexdigest()
    if ref.startswith(RECORDED):
        from undersong.evaluation.serving.recorded_model import recorded_model

        return recorded_model(ref).fingerprint
    from undersong.models.refs import model_hash

    return model_hash(ref)


def display_reference(ref: str) -> str:
    """Reference as artifacts and messages have it: recorded replies without their folder, an address without a name
    and password."""
    from undersong.evaluation.serving.endpoint import without_credentials

    if ref.startswith(RECORDED):
        return f"{RECORDED}{Path(ref.removeprefix(RECORDED)).name}"
    return without_credentials(ref) if ref.startswith(SERVED) else ref
