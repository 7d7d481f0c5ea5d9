"""The audited model's own encoder: the mean of what its decoder hears.  Knows the Listener protocol, no family."""

from __future__ import annotations

from collections.abc import Sequence

from undersong.encoders.clips import ClipEncoder, Pooled, mean_over
from undersong.types import Clip, Listener


def internal(model: Listener, name: str = "internal", *, rate: int = 16_000, batch: int = 16) -> ClipEncoder:
    """Mean over valid frames of the decoder's audio inputs (`model.embed`), after encoder and projector.

    `embed` returns a clip's own frames only, so padding of a batch cannot enter.  `rate`: what the model hears at.
    """

    def embed(clips: Sequence[Clip]) -> list[Pooled]:
        return [mean_over(frames) for frames in model.embed(clips)]

    return ClipEncoder(name, embed, rate, batch)
