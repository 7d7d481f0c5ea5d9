"""Texts for samples that have none, by the ASR model a text encoder names (`text,asr=REF`): an artefact of its own.

Knows transcribing and the store; does not know axes.
"""

from __future__ import annotations

from collections.abc import Sequence

from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft
from undersong.types import Sample


def asr_of(spec: str) -> str:
    """The ASR model of an encoder; empty: it reads only what is written."""
    from undersong.encoders.options import parse_encoder

    read = parse_encoder(spec)
    return read.option("asr") if read.kind == "text" else ""


def transcripts(shop: Workshop, asr: str, corpus: Corpus) -> Artefact:
    """What the model hears in every sample of a corpus that has no text."""
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.encoders.transcribe import transcriber
        from undersong.encoders.transcripts import mute, write_transcripts

        made = transcriber(asr, device=shop.loading.device).transcribe(mute(corpus.samples))
        write_transcripts(made, draft.path)
        draft.note(transcribed=len(made.rows), quarantined=len(made.quarantined))

    inputs: dict[str, Artefact | str] = {"corpus": corpus.artefact, "weights": model_hash(asr)}
    return shop.store.get_or_make("transcripts", 1, {}, inputs, make, packages=("torch", "transformers"))


def with_texts(samples: Sequence[Sample], asr: str, device: str) -> Sequence[Sample]:
    """The samples, with transcripts where they have no text; nothing is kept."""
    from undersong.encoders.transcribe import transcriber
    from undersong.encoders.transcripts import mute, with_transcripts

    return with_transcripts(samples, transcriber(asr, device=device).transcribe(mute(samples)))
