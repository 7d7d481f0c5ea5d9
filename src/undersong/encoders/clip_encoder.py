"""Encoders of audio clips: decode in threads with bounded memory, embed in batches of similar length, validate.

Includes the encoder of the audited model itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.corpora.decode import (
    MIN_SOUND_SECONDS,
    THREADS,
    UnreadableAudioError,
    inaudible_reason,
    load_clip,
    threaded_map,
)
from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.embedding_checks import validate_embeddings
from undersong.models.out_of_memory import halve_on_oom
from undersong.types import Clip, Embeddings, PooledVector, PoolingEncoder, Quarantined, Sample

MAX_CLIPS_AHEAD = 64  # decoded clips that wait, at most
MAX_SECONDS_AHEAD = 1_200  # seconds of sound that wait, about: 77 MB at 16 kHz
CLIPS_PER_BLOCK = 256  # clips that are sorted by length together, so that a batch wastes little padding
SECONDS_PER_BLOCK = 3_600  # the same limit for long clips


def decode_clips(samples: Sequence[Sample], rate: int, threads: int = THREADS) -> Iterator[Clip | Quarantined]:
    """Yield each sample's clip at `rate` Hz, or the reason for its quarantine, in the samples' order.

    The number of clips decoded ahead depends on the longest one so far, so that hours of recordings do not fill memory.
    """
    longest = 0.0

    def capacity() -> int:
        return max(threads, min(MAX_CLIPS_AHEAD, int(MAX_SECONDS_AHEAD / longest)) if longest else 2 * threads)

    for clip in threaded_map(lambda sample: decode_clip(sample, rate), samples, capacity, threads):
        longest = max(longest, _duration(clip))
        yield clip


def decode_clip(sample: Sample, rate: int) -> Clip | Quarantined:
    """Decode the clip of a sample; Quarantined with the reason if it is not audible."""
    if sample.audio is None:
        return Quarantined(sample.id, "no audio")
    try:
        clip = load_clip(sample, rate=rate)
    except UnreadableAudioError as error:
        return Quarantined(sample.id, error.reason)
    # An encoder may give silence a vector that says nothing about the item. The encoder itself reports a clip that is
    # too short, by its number of frames.
    reason = inaudible_reason(clip, min(MIN_SOUND_SECONDS, clip_seconds(clip) / 2))
    return clip if reason is None else Quarantined(sample.id, reason)


def length_sorted_blocks(clips: Iterable[Clip | Quarantined], quarantined: list[Quarantined]) -> Iterator[list[Clip]]:
    """Yield clips in blocks, sorted by length (stable). Quarantined items are appended to `quarantined`."""
    block: list[Clip] = []
    block_seconds = 0.0
    for item in clips:
        if isinstance(item, Quarantined):
            quarantined.append(item)
            continue
        block.append(item)
        block_seconds += clip_seconds(item)
        if len(block) == CLIPS_PER_BLOCK or block_seconds >= SECONDS_PER_BLOCK:
            yield sorted(block, key=_sample_count)
            block, block_seconds = [], 0.0
    if block:
        yield sorted(block, key=_sample_count)


def _sample_count(clip: Clip) -> int:
    return len(clip.samples)


def _duration(clip: Clip | Quarantined) -> float:
    return clip_seconds(clip) if isinstance(clip, Clip) else 0.0


def clip_seconds(clip: Clip) -> float:
    """Length of a clip in seconds."""
    return len(clip.samples) / clip.rate


@dataclass(slots=True)
class ClipEncoder:
    """An encoder of audio: `embed` maps clips to their pooled vectors, in order.

    `embed` gets up to `batch` clips of similar length at once; the number is halved when memory runs out. `progress` is
    called after every batch and may be set at any time.
    """

    name: str
    embed: Callable[[Sequence[Clip]], Sequence[PooledVector]]
    rate: int = 16_000
    batch: int = 1
    progress: ProgressCallback | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Embed samples, in order. Unreadable, silent, frameless and too large clips are quarantined.

        Raises the errors of `embed`, except for lack of memory: then half the batch is tried, and a clip that does not
        fit alone is quarantined.
        """
        quarantined: list[Quarantined] = []
        pooled: dict[str, PooledVector] = {}
        timer = start_progress(len(samples), self.progress)
        for block in length_sorted_blocks(decode_clips(samples, self.rate), quarantined):
            for batch, batch_vectors in halve_on_oom(self.embed, block, self.batch):
                if batch_vectors is None:
                    quarantined.append(
                        Quarantined(batch[0].id, f"out of memory: {clip_seconds(batch[0]):.1f} s of audio")
                    )
                else:
                    pooled.update(zip((clip.id for clip in batch), batch_vectors, strict=True))
                timer.update(len(pooled) + len(quarantined))
        quarantined += [
            Quarantined(id, "too short: no valid frame")
            for id, clip_vector in pooled.items()
            if clip_vector.frames == 0
        ]
        timer.update(len(samples))
        ids = [sample.id for sample in samples if sample.id in pooled and pooled[sample.id].frames > 0]
        vectors = np.stack([pooled[id].vector for id in ids]) if ids else np.zeros((0, 0), dtype=np.float32)
        return validate_embeddings(self.name, ids, vectors, [pooled[id].frames for id in ids], quarantined)


def internal_encoder(
    model: PoolingEncoder, name: str = "internal", *, rate: int = 16_000, batch: int = 16
) -> ClipEncoder:
    """Encoder of the audited model itself, by `model.pool`: the mean over valid frames.

    Args:
        model: The model, or one of its views.
        name: Name of the encoder.
        rate: Sampling rate that the model takes, in Hz.
        batch: Clips per call.
    """
    return ClipEncoder(name, model.pool, rate, batch)
