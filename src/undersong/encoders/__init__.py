"""Reference encoders and the internal one, all behind the Encoder protocol: samples in, one vector each out."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from undersong.types import Encoder, Listener, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.encoders.clips import ClipEncoder
    from undersong.encoders.text import TextEncoder

ENCODERS_THAT_FIT = ("tfidf", "char-ngrams")  # their vectors depend on the texts of `fit`
ENCODERS = (*ENCODERS_THAT_FIT, "logmel", "internal", "whisper")

__all__ = ["ENCODERS", "ENCODERS_THAT_FIT", "check_encoder", "is_internal", "make_encoder", "view_of"]


def make_encoder(spec: str, *, fit: Sequence[Sample], model: Listener | None = None) -> Encoder:
    """The encoder a study names: tfidf | char-ngrams | logmel | internal[:VIEW] | whisper:FOLDER
    (a folder, or a packaged organism:NAME).

    `internal` is what the model's decoder hears; its views are places before that: internal:tower,
    internal:projector, and what else its family has.

    `fit`: what text encoders are fitted on (pool and reference harm set together); `model`: whose `internal` it is.
    Raises UndersongError for an unknown name, naming the nearest known one.
    """
    check_encoder(spec)
    kind, _, folder = spec.partition(":")
    return _make(kind, folder, fit, model)


def view_of(spec: str) -> str | None:
    """The view that `internal:VIEW` names; None: what the decoder hears."""
    return spec.removeprefix("internal").removeprefix(":") or None


def is_internal(spec: str) -> bool:
    """Whether an encoder is the audited model's own."""
    return spec.partition(":")[0] == "internal"


def check_encoder(spec: str) -> None:
    """Raises UndersongError for a spec that `make_encoder` does not know; loads nothing."""
    kind, _, folder = spec.partition(":")
    if kind not in ENCODERS:
        near = difflib.get_close_matches(kind, ENCODERS, n=1, cutoff=0.0)[0]
        raise UndersongError(f"Unknown encoder {spec!r}; the nearest known is {near!r} (known: {', '.join(ENCODERS)}).")
    if kind != "internal" and (kind == "whisper") != bool(folder):
        raise UndersongError(
            f"Encoder {spec!r}: write whisper:FOLDER with a folder, internal or internal:VIEW, and the others alone."
        )


def _make(kind: str, folder: str, fit: Sequence[Sample], model: Listener | None) -> ClipEncoder | TextEncoder:
    # Imports stay inside: each encoder brings its own library.
    if kind == "tfidf":
        from undersong.encoders.text import tfidf

        return tfidf(fit)
    if kind == "char-ngrams":
        from undersong.encoders.text import char_ngrams

        return char_ngrams(fit)
    if kind == "logmel":
        from undersong.encoders.logmel import logmel

        return logmel()
    if kind == "whisper":
        from undersong.encoders.whisper import whisper_encoder
        from undersong.models.folders import model_folder

        return whisper_encoder(model_folder(folder) or folder)
    if model is None:
        raise UndersongError("Encoder 'internal' needs the audited model; give one, or screen its ready embeddings.")
    from undersong.encoders.internal import internal

    return internal(model, f"internal:{folder}" if folder else "internal")
