"""Transcripts for samples without text, by the ASR model that a text encoder names (`text,asr=REF`)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from undersong.scale.row_shards import RowFunction, RowShards
from undersong.stages.context import Corpus, RunContext
from undersong.stages.engine import DEFAULT_ENGINE, Engine, fill_missing_shards, remove_shards, shards_path
from undersong.store.draft import Draft
from undersong.store.store import Artifact, Store

STAGE, VERSION = "transcripts", 1
CLIPS_PER_SHARD = 512  # the most work that a kill can lose: transcribing is slower than any encoder


def asr_model(spec: str) -> str:
    """ASR model of an encoder; empty if it uses written text only."""
    from undersong.encoders.spec import parse_encoder

    encoder_spec = parse_encoder(spec)
    return encoder_spec.option("asr") if encoder_spec.kind == "text" else ""


def transcribe_corpus(ctx: RunContext, asr: str, corpus: Corpus, engine: Engine = DEFAULT_ENGINE) -> Artifact:
    """Artifact with transcripts of every sample of a corpus that has no text; in shards, so that a kill loses one.

    A job with its own shards makes these first, and then whatever is missing if no other job is working on it.

    Args:
        ctx: The run context.
        asr: The ASR model.
        corpus: The corpus.
        engine: Engine that transcribes.
    """
    from undersong.models.refs import model_hash

    make_pass = partial(transcription_pass, asr, ctx.loading.device)
    watcher = ctx.watcher(f"{asr} transcribes {corpus.ref}")

    def make(draft: Draft) -> None:
        from undersong.encoders.asr import (
            Transcripts,
            samples_without_text,
            transcripts_from_table,
            write_transcripts,
        )

        shards = RowShards(shards_path(draft.path), samples_without_text(corpus.samples), CLIPS_PER_SHARD)
        fill_missing_shards(replace(engine, shard=None), shards, make_pass, watcher)
        table = transcripts_from_table(shards.table()) if shards.samples else Transcripts(())
        write_transcripts(table, draft.path)
        draft.note(transcribed=len(table.rows), quarantined=len(table.quarantined))

    inputs: dict[str, Artifact | str] = {"corpus": corpus.artifact, "weights": model_hash(asr)}
    if engine.shard is not None and isinstance(ctx.store, Store):
        from undersong.encoders.asr import samples_without_text

        expected = ctx.store.locate(STAGE, VERSION, {}, inputs)
        if not expected.location.exists():
            fill_missing_shards(
                engine,
                RowShards(shards_path(expected.location), samples_without_text(corpus.samples), CLIPS_PER_SHARD),
                make_pass,
                watcher,
            )
    artifact = ctx.store.get_or_make(STAGE, VERSION, {}, inputs, make, packages=("torch", "transformers"))
    remove_shards(artifact)
    return artifact


def transcription_pass(asr: str, device: str) -> RowFunction:
    """Pass over spoken samples by an ASR model, which is loaded for it."""
    from undersong.encoders.asr import load_transcriber, transcripts_table

    speech_recognizer = load_transcriber(asr, device=device)
    return lambda samples: transcripts_table(samples, speech_recognizer.transcribe(samples))
