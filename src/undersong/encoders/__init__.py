"""Reference encoders and the internal one, all behind the Encoder protocol: samples in, one vector each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.encoders.options import GRADIENT_DIM, KINDS, EncoderSpec, parse_encoder
from undersong.encoders.progress import Watcher
from undersong.types import Encoder, Listener, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.own import OwnEncoder
    from undersong.encoders.spoken.clips import ClipEncoder
    from undersong.encoders.written.sentences import SentenceEncoder
    from undersong.encoders.written.text import TextEncoder

ENCODERS_THAT_FIT = ("tfidf", "char-ngrams")  # their vectors depend on the texts of `fit`
ENCODERS = KINDS

__all__ = [
    "ENCODERS",
    "ENCODERS_THAT_FIT",
    "check_encoder",
    "check_installed",
    "gradients_dim",
    "is_internal",
    "make_encoder",
    "view_of",
]


def make_encoder(
    spec: str,
    *,
    fit: Sequence[Sample],
    model: Listener | None = None,
    device: str = "cpu",
    progress: Watcher | None = None,
) -> Encoder:
    """The encoder a study names (`options.py`): tfidf | char-ngrams | logmel | internal[:VIEW] | whisper:REF |
    speech:REF[,layer=..,pool=..,pad=..,dtype=..] | text[:REF] | speaker[:FOLDER]; REF is a folder, a packaged
    organism:NAME or a hub id; or python:FILE.py:FUNCTION, python:PACKAGE.MODULE:FUNCTION, code of the user's own.

    `internal` is what the model's decoder hears; its views are places before that: internal:tower,
    internal:projector, and what else its family has.

    `fit`: what text encoders are fitted on (pool and reference harm set together); `model`: whose `internal` it is.
    `progress` hears how far `encode` is.  Raises UndersongError for an unknown name, naming the nearest known one.
    """
    read = parse_encoder(spec)
    if read.kind == "gradients":
        raise UndersongError("Axis gradients needs the model and replies to learn: name it in a study, and run that.")
    if read.kind in ENCODERS_THAT_FIT:
        return _fitted(read.kind, fit)
    encoder = _loaded(read, model, device)
    encoder.progress = progress
    return encoder


def view_of(spec: str) -> str | None:
    """The view that `internal:VIEW` names; None: what the decoder hears."""
    return spec.removeprefix("internal").removeprefix(":") or None


def gradients_dim(spec: str) -> int | None:
    """The dimension of an axis of projected gradients; None: the encoder is another."""
    read = parse_encoder(spec)
    return int(read.ref or GRADIENT_DIM) if read.kind == "gradients" else None


def is_internal(spec: str) -> bool:
    """Whether an encoder is the audited model's own."""
    return spec.partition(":")[0] == "internal"


def check_encoder(spec: str) -> None:
    """Raises UndersongError for a spec that `make_encoder` does not know; loads nothing."""
    parse_encoder(spec)


def check_installed(spec: str) -> None:
    """Raises UndersongError for an encoder whose package, or weights that come with one, are not here; imports none."""
    read = parse_encoder(spec)
    if read.kind == "text":
        from undersong.encoders.written.sentences import check_installed

        check_installed(spec)
    if read.kind == "speaker":
        from undersong.encoders.spoken.speaker import speaker_file

        speaker_file(read.ref)


# Imports stay inside: each encoder brings its own library.
def _fitted(kind: str, fit: Sequence[Sample]) -> TextEncoder:
    from undersong.encoders.written.text import char_ngrams, tfidf

    return tfidf(fit) if kind == "tfidf" else char_ngrams(fit)


def _loaded(read: EncoderSpec, model: Listener | None, device: str) -> ClipEncoder | SentenceEncoder | OwnEncoder:
    if read.code:
        from undersong.encoders.own import own_encoder

        return own_encoder(read.canonical, read.code)
    if read.kind == "logmel":
        from undersong.encoders.spoken.logmel import logmel

        return logmel()
    if read.kind == "whisper":
        from undersong.encoders.spoken.whisper import whisper_encoder
        from undersong.models.folders import model_folder

        return whisper_encoder(model_folder(read.ref) or read.ref, device=device)
    if read.kind == "speech":
        from undersong.encoders.spoken.speech import speech_encoder

        layer, pool, pad, dtype = (read.option(name) for name in ("layer", "pool", "pad", "dtype"))
        return speech_encoder(read.ref, layer=layer, pool=pool, pad=pad, dtype=dtype, device=device)
    if read.kind == "text":
        from undersong.encoders.written.sentences import sentence_encoder

        return sentence_encoder(read.ref, device=device)
    if read.kind == "speaker":
        from undersong.encoders.spoken.speaker import speaker_encoder

        return speaker_encoder(read.ref, device=device)
    if model is None:
        raise UndersongError("Encoder 'internal' needs the audited model; give one, or screen its ready embeddings.")
    from undersong.encoders.internal import internal

    return internal(model, f"internal:{read.ref}" if read.ref else "internal")
