"""The audited model's own encoder: the mean of what it hears.  Knows the Listener protocol, no family."""

from __future__ import annotations

from undersong.encoders.spoken.clips import ClipEncoder
from undersong.types import PoolingEncoder


def internal_encoder(
    model: PoolingEncoder, name: str = "internal", *, rate: int = 16_000, batch: int = 16
) -> ClipEncoder:
    """`model.pool`: the mean over valid frames, of the decoder's audio inputs or of a named view before them.

    `rate`: what the model hears at.
    """
    return ClipEncoder(name, model.pool, rate, batch)
