"""Transcripts of spoken data that have none, so that words can be measured."""

from __future__ import annotations

from dataclasses import replace

from undersong.corpora.training_file import TrainingFile
from undersong.phrases import count
from undersong.screening.check.axis_choice import AUDIO
from undersong.screening.check.options import CheckRequest
from undersong.screening.check.request_sets import request_set, store_set
from undersong.stages.context import RunContext
from undersong.types import UndersongError


def transcribe_data(ctx: RunContext, data: TrainingFile, request: CheckRequest) -> tuple[TrainingFile, str]:
    """The data with a transcript of every clip that has none and can be transcribed, and a note on what was.

    What is typed beside a clip stays a request of its own.

    Args:
        ctx: The run context, whose store keeps the transcripts.
        data: The data.
        request: The request; `transcribe` names the model of speech recognition.

    Raises:
        UndersongError: There is nothing to transcribe, or the model can transcribe none of it.
    """
    from undersong.encoders.asr import read_transcripts
    from undersong.stages.transcripts import transcribe_corpus

    assert request.transcribe is not None
    silent = [position for position, sample in enumerate(data.samples) if sample.spoken and not sample.transcribed]
    spoken = request_set(data, AUDIO, list(range(len(data.samples))), request)
    chosen = spoken.take([i for i, owner in enumerate(spoken.owners) if owner in set(silent)])
    if not chosen.samples:
        raise UndersongError(
            f"{data.ref} has no clip without a transcript that is here; leave --transcribe out, or check the paths of "
            "its clips."
        )
    untexted = replace(chosen, samples=tuple(replace(sample, text=None) for sample in chosen.samples))
    corpus = store_set(ctx, data.ref, untexted, decode=True)
    transcripts = read_transcripts(transcribe_corpus(ctx, request.transcribe, corpus).path)
    if not transcripts.rows:
        lost = (*transcripts.quarantined, *corpus.quarantined)[0]
        raise UndersongError(
            f"None of {len(chosen.samples):,} clips of {data.ref} can be transcribed by {request.transcribe}, the "
            f"first: {chosen.requests[int(lost.id)].id} ({lost.reason}); take another model with --transcribe."
        )
    texts = {row.id: row.text for row in transcripts.rows}
    samples = list(data.samples)
    for number, owner in enumerate(chosen.owners):
        if (text := texts.get(str(number))) is not None:
            sample = samples[owner]
            samples[owner] = replace(sample, requests=(text, *sample.requests), transcribed=True)
    note = f"{request.transcribe} transcribed {count(len(texts), 'clip')}, errors included."
    if failed := [item for item in (*transcripts.quarantined, *corpus.quarantined) if item.id not in texts]:
        first = chosen.requests[int(failed[0].id)].id
        note += f" It could not transcribe {count(len(failed), 'clip')}, the first: {first} ({failed[0].reason})."
    return replace(data, samples=tuple(samples)), note
