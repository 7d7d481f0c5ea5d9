"""What an encoder's weights are, as an artefact's key says it.  Loads no network."""

from __future__ import annotations

import hashlib

from undersong.encoders.spec import EncoderSpec
from undersong.types import UndersongError


def encoder_weights_hash(spec: EncoderSpec, allow_missing: bool = False) -> str | None:
    """SHA-256 of the weights that its vectors depend on; None: it has none of its own.

    `unread`: of a file that is not here, the hash of its name, for plans, which make nothing.  Raises UndersongError
    where a file of them is not there.
    """
    if spec.kind == "speaker":
        from undersong.encoders.speaker import speaker_weights_file
        from undersong.store import hash_file

        try:
            return hash_file(speaker_weights_file(spec.ref))
        except UndersongError:
            if not allow_missing:
                raise
            return hashlib.sha256(spec.canonical.encode()).hexdigest()
    if spec.weights:
        from undersong.models.refs import model_hash

        return model_hash(spec.weights)
    return None
