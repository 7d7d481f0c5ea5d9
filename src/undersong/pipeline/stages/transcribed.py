"""Texts for samples that have none, by the ASR model a text encoder names (`text,asr=REF`): an artefact of its own.

Knows transcribing and the store; does not know axes.
"""

from __future__ import annotations

from functools import cache

from undersong.pipeline.workshop import Corpus, Workshop
from undersong.store import Artefact, Draft

SHARD = 512  # clips that a kill may cost: transcribing is the slowest of all encoders


def asr_of(spec: str) -> str:
    """The ASR model of an encoder; empty: it reads only what is written."""
    from undersong.encoders.options import parse_encoder

    read = parse_encoder(spec)
    return read.option("asr") if read.kind == "text" else ""


def transcripts(shop: Workshop, asr: str, corpus: Corpus) -> Artefact:
    """What the model hears in every sample of a corpus that has no text; in shards, so that a kill loses one."""
    from undersong.models.folders import model_hash

    def make(draft: Draft) -> None:
        from undersong.encoders.progress import watch
        from undersong.encoders.written.transcribe import transcriber
        from undersong.encoders.written.transcripts import joined, mute, read_transcripts, write_transcripts

        samples = mute(corpus.samples)
        hear = cache(lambda: transcriber(asr, device=shop.loading.device))
        clock = watch(len(samples), shop.watcher(f"{asr} transcribes {corpus.ref}"))
        parts = []
        for number, start in enumerate(range(0, max(1, len(samples)), SHARD)):
            name = f"part-{number:05d}"
            if not draft.has(name):
                with draft.file(name) as folder:
                    write_transcripts(hear().transcribe(samples[start : start + SHARD]), folder)
            clock.at(min(start + SHARD, len(samples)))
            parts.append(read_transcripts(draft.path / name))
        whole = joined(parts)
        write_transcripts(whole, draft.path)
        draft.note(transcribed=len(whole.rows), quarantined=len(whole.quarantined))

    inputs: dict[str, Artefact | str] = {"corpus": corpus.artefact, "weights": model_hash(asr)}
    return shop.store.get_or_make("transcripts", 1, {}, inputs, make, packages=("torch", "transformers"))
