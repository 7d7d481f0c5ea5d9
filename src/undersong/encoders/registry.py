"""Encoders by specification, and the hash of their weights.

The library of an encoder is imported only when the encoder is made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.encoders.batching import ProgressCallback
from undersong.encoders.spec import GRADIENT_DIM, PREDICTORS, EncoderSpec, parse_encoder
from undersong.types import Encoder, PoolingEncoder, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.clip_encoder import ClipEncoder
    from undersong.encoders.custom import CustomEncoder
    from undersong.encoders.text import SentenceEncoder, TextEncoder


ENCODERS_THAT_FIT = ("tfidf", "char-ngrams")  # their vectors depend on the texts of `fit`


def make_encoder(
    spec: str,
    *,
    fit: Sequence[Sample],
    model: PoolingEncoder | None = None,
    device: str = "cpu",
    progress: ProgressCallback | None = None,
) -> Encoder:
    """Make the encoder of a specification.

    Specifications (spec.py): tfidf | char-ngrams | logmel | internal[:VIEW] | whisper:REF |
    speech:REF[,layer=..,pool=..,pad=..,dtype=..] | text[:REF] | speaker[:FOLDER] | python:FILE.py:FUNCTION |
    python:PACKAGE.MODULE:FUNCTION. REF is a folder, a packaged organism:NAME or a Hugging Face id. `internal` is the
    input of the model's decoder; its views are earlier layers, such as internal:tower and internal:projector.

    Args:
        spec: The specification.
        fit: Samples that text encoders are fitted on (pool and reference harm set together).
        model: Model of the `internal` encoder.
        device: Torch device.
        progress: Callback for the progress of `encode`.

    Raises:
        UndersongError: Unknown specification; names the nearest known one.
    """
    parsed = parse_encoder(spec)
    if parsed.kind == "gradients":
        raise UndersongError("Axis gradients needs the model and replies to learn: name it in a study, and run that.")
    if parsed.kind in PREDICTORS:
        raise UndersongError(
            f"Axis {parsed.kind} is no encoder of single items: it runs the audited model on prompts; name it in a "
            "study, or in a screening with --model."
        )
    if parsed.kind in ENCODERS_THAT_FIT:
        return _fit_text_encoder(parsed.kind, fit)
    encoder = _load_encoder(parsed, model, device)
    encoder.progress = progress
    return encoder


def internal_view(spec: str) -> str | None:
    """The view that `internal:VIEW` names; None for the decoder's input."""
    return spec.removeprefix("internal").removeprefix(":") or None


def gradients_dim(spec: str) -> int | None:
    """Dimension of an axis of projected gradients; None for another encoder."""
    parsed = parse_encoder(spec)
    return int(parsed.ref or GRADIENT_DIM) if parsed.kind == "gradients" else None


def is_predictor(spec: str) -> bool:
    """True for an axis that is measured by running the audited model on prompts."""
    return parse_encoder(spec).kind in PREDICTORS


def needs_model(spec: str) -> bool:
    """True for an axis that needs the weights of the audited model."""
    return is_internal(spec) or gradients_dim(spec) is not None or is_predictor(spec)


def is_internal(spec: str) -> bool:
    """True if the encoder is the audited model itself."""
    return spec.partition(":")[0] == "internal"


def check_encoder(spec: str) -> None:
    """Raise UndersongError for a specification that `make_encoder` does not know; load nothing."""
    parse_encoder(spec)


def check_installed(spec: str) -> None:
    """Raise UndersongError if the package or the packaged weights of an encoder are missing; import nothing."""
    parsed = parse_encoder(spec)
    if parsed.kind == "text":
        from undersong.encoders.text import check_sentence_transformers

        check_sentence_transformers(spec)
    if parsed.kind == "speaker":
        from undersong.encoders.speaker import speaker_weights_file

        speaker_weights_file(parsed.ref)


# Imports stay inside: each encoder brings its own library.
def _fit_text_encoder(kind: str, fit: Sequence[Sample]) -> TextEncoder:
    from undersong.encoders.text import char_ngram_encoder, tfidf_encoder

    return tfidf_encoder(fit) if kind == "tfidf" else char_ngram_encoder(fit)


def _load_encoder(
    spec: EncoderSpec, model: PoolingEncoder | None, device: str
) -> ClipEncoder | SentenceEncoder | CustomEncoder:
    if spec.code:
        from undersong.encoders.custom import custom_encoder

        return custom_encoder(spec.canonical, spec.code)
    if spec.kind == "logmel":
        from undersong.encoders.logmel import logmel_encoder

        return logmel_encoder()
    if spec.kind == "whisper":
        from undersong.encoders.whisper import whisper_encoder
        from undersong.models.refs import model_folder

        return whisper_encoder(model_folder(spec.ref) or spec.ref, device=device)
    if spec.kind == "speech":
        from undersong.encoders.speech import speech_encoder

        layer, pool, pad, dtype = (spec.option(name) for name in ("layer", "pool", "pad", "dtype"))
        return speech_encoder(spec.ref, layer=layer, pool=pool, pad=pad, dtype=dtype, device=device)
    if spec.kind == "text":
        from undersong.encoders.text import sentence_encoder

        return sentence_encoder(spec.ref, device=device)
    if spec.kind == "speaker":
        from undersong.encoders.speaker import speaker_encoder

        return speaker_encoder(spec.ref, device=device)
    if model is None:
        raise UndersongError("Encoder 'internal' needs the audited model; give one, or screen its ready embeddings.")
    from undersong.encoders.clip_encoder import internal_encoder

    return internal_encoder(model, f"internal:{spec.ref}" if spec.ref else "internal")


def encoder_weights_hash(spec: EncoderSpec, allow_missing: bool = False) -> str | None:
    """SHA-256 of the weights that an encoder's vectors depend on; None if it has none of its own.

    With `allow_missing`, a missing file has the hash of its name, for plans. Otherwise it raises UndersongError.
    """
    if spec.kind == "speaker":
        from undersong.encoders.speaker import speaker_weights_file
        from undersong.store.hashing import hash_file

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
