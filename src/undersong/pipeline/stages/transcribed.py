"""Texts for samples that have none, by the ASR model a text encoder names (`text,asr=REF`): an artefact of its own.

Knows transcribing and the store; does not know axes.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from undersong.pipeline.engine import AT_ONCE, Engine, clear, pass_over, portions_of
from undersong.pipeline.workshop import Corpus, Workshop
from undersong.scale.portions import Pass, Portions
from undersong.store import Artefact, Draft, Store

STAGE, VERSION = "transcripts", 1
SHARD = 512  # clips that a kill may cost: transcribing is the slowest of all encoders


def asr_of(spec: str) -> str:
    """The ASR model of an encoder; empty: it reads only what is written."""
    from undersong.encoders.options import parse_encoder

    read = parse_encoder(spec)
    return read.option("asr") if read.kind == "text" else ""


def transcripts(shop: Workshop, asr: str, corpus: Corpus, engine: Engine = AT_ONCE) -> Artefact:
    """What the model hears in every sample of a corpus that has no text; in shards, so that a kill loses one.

    A job with shards of its own makes these first, and then whatever is still missing when no other job is at it.
    """
    from undersong.models.folders import model_hash

    make_pass = partial(transcribing, asr, shop.loading.device)
    watcher = shop.watcher(f"{asr} transcribes {corpus.ref}")

    def make(draft: Draft) -> None:
        from undersong.encoders.written.transcripts import Transcripts, mute, transcripts_of, write_transcripts

        portions = Portions(portions_of(draft.path), mute(corpus.samples), SHARD)
        pass_over(replace(engine, shard=None), portions, make_pass, watcher)
        whole = transcripts_of(portions.table()) if portions.samples else Transcripts(())
        write_transcripts(whole, draft.path)
        draft.note(transcribed=len(whole.rows), quarantined=len(whole.quarantined))

    inputs: dict[str, Artefact | str] = {"corpus": corpus.artefact, "weights": model_hash(asr)}
    if engine.shard is not None and isinstance(shop.store, Store):
        from undersong.encoders.written.transcripts import mute

        place = shop.store.place(STAGE, VERSION, {}, inputs)
        if not place.path.exists():
            pass_over(engine, Portions(portions_of(place.path), mute(corpus.samples), SHARD), make_pass, watcher)
    made = shop.store.get_or_make(STAGE, VERSION, {}, inputs, make, packages=("torch", "transformers"))
    clear(portions_of(made.path), made)
    return made


def transcribing(asr: str, device: str) -> Pass:
    """A pass over spoken samples by the model, which is loaded for it."""
    from undersong.encoders.written.transcribe import transcriber
    from undersong.encoders.written.transcripts import transcripts_table

    hearing = transcriber(asr, device=device)
    return lambda samples: transcripts_table(samples, hearing.transcribe(samples))
