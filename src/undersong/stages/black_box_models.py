"""Models known by their replies alone: served behind an address (`served:`) or recorded in a table (`recorded:`).

They can be evaluated, and neither tuned nor explained.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from undersong.types import Prompt, Reply

if TYPE_CHECKING:
    from undersong.encoders.batching import ProgressCallback
    from undersong.study import Study

SERVED, RECORDED = "served:", "recorded:"


class BlackBoxModel(Protocol):
    """What answers prompts."""

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """One reply a prompt, in order, as `AudioModel.generate`; `limit`: new tokens of a reply, at most."""
        ...


def is_black_box(ref: str) -> bool:
    """Whether nothing of a model can be had but its replies."""
    return ref.startswith((SERVED, RECORDED))


def trainable_models(study: Study) -> list[str]:
    """The models of a study that arms are trained on: all but those that only answer."""
    return [ref for ref in study.models if not is_black_box(ref)]


def load_black_box_model(ref: str, watcher: ProgressCallback | None = None) -> BlackBoxModel:
    """The speaker of a reference that `answers_only`; errors: an address that is none, a file that cannot be read."""
    if ref.startswith(SERVED):
        from undersong.evaluation.serving.served_model import served_model

        return served_model(ref, watcher)
    from undersong.evaluation.serving.recorded_model import recorded_model

    return recorded_model(ref)


def model_identity_hash(ref: str) -> str:
    """What stands for a model in the name of its replies: its weights; the recorded table; or, of a served model, its
    name and address alone, because nobody outside can tell what it is made of."""
    if ref.startswith(SERVED):
        return hashlib.sha256(ref.encode()).hexdigest()
    if ref.startswith(RECORDED):
        from undersong.evaluation.serving.recorded_model import recorded_model

        return recorded_model(ref).fingerprint
    from undersong.models.refs import model_hash

    return model_hash(ref)


def display_reference(ref: str) -> str:
    """The reference as artifacts note it: of recorded replies the file's name without its place."""
    return f"{RECORDED}{Path(ref.removeprefix(RECORDED)).name}" if ref.startswith(RECORDED) else ref
