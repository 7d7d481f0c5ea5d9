"""What an encoder's weights are, as an artefact's key says it.  Loads no network."""

from __future__ import annotations

from undersong.encoders.options import EncoderSpec


def encoder_weights_hash(read: EncoderSpec) -> str | None:
    """SHA-256 of the weights that its vectors depend on; None: it has none of its own.

    Raises UndersongError where a file of them is not there.
    """
    if read.kind == "speaker":
        from undersong.encoders.spoken.speaker import speaker_file
        from undersong.store import hash_file

        return hash_file(speaker_file(read.ref))
    if read.weights:
        from undersong.models.folders import model_hash

        return model_hash(read.weights)
    return None
