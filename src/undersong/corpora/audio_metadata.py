"""What decoding one item tells of it: how long it is, what is heard, and a fingerprint; or why it cannot be used.

Facts are small and a decoded clip is not, so a large corpus is decoded in shards and only these are kept.  Knows
samples and clips; does not know files of facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from undersong.corpora.audio_fingerprint import fingerprint_clip
from undersong.corpora.decode import UnreadableAudioError, load_clip, pcm_hash
from undersong.corpora.sound.ahead import THREADS, threaded_map
from undersong.corpora.sound.audible import inaudible_reason
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np

SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class AudioMetadata:
    """Of one item.  `reason`: why it cannot be used.  `print`: (512,) float32 and the seconds that sound, of
    `alike.fingerprint`; None where there is no sound to take it of."""

    id: str
    reason: str | None = None
    seconds: float | None = None
    pcm_hash: str | None = None
    fingerprint: tuple[np.ndarray, float] | None = None


def decode_sample_metadata(sample: Sample) -> AudioMetadata:
    """Silence is not usable: a model may well give it a vector and a reply, which would say nothing about the item.

    Written items pass as they are.
    """
    if sample.audio is None:
        return AudioMetadata(sample.id, None if (sample.text or "").strip() else "there is neither audio nor text")
    try:
        clip = load_clip(sample, SAMPLE_RATE)
    except UnreadableAudioError as error:
        return AudioMetadata(sample.id, error.reason)
    if reason := inaudible_reason(clip):
        return AudioMetadata(sample.id, reason)
    return AudioMetadata(sample.id, None, clip.samples.size / SAMPLE_RATE, pcm_hash(clip), fingerprint_clip(clip))


def decode_metadata(
    samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> Iterator[AudioMetadata]:
    """Of every sample, in order, decoded in threads; `tell` hears how many are done."""
    for number, metadata in enumerate(threaded_map(decode_sample_metadata, samples, lambda: 2 * THREADS)):
        if on_progress is not None:
            on_progress(number)
        yield metadata


def apply_audio_metadata(
    samples: Sequence[Sample], metadata: Sequence[AudioMetadata]
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Usable samples with `seconds` and `pcm_hash` filled in, and why others are not.

    What a manifest said of seconds and hash of a clip is replaced by what was found.  ValueError for facts that are not
    of these samples, in their order: they may be of another run's shards.
    """
    if [entry.id for entry in metadata] != [sample.id for sample in samples]:
        raise ValueError("the facts are not of these samples, in their order")
    usable = tuple(
        sample if sample.audio is None else replace(sample, seconds=entry.seconds, pcm_hash=entry.pcm_hash)
        for sample, entry in zip(samples, metadata)
        if entry.reason is None
    )
    return usable, tuple(Quarantined(entry.id, entry.reason) for entry in metadata if entry.reason is not None)


def examine(
    samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Decode every spoken item once: `examined` by its own facts."""
    return apply_audio_metadata(samples, list(decode_metadata(samples, on_progress)))
