"""Audio files decoded in threads, ahead of the encoder, in order and in bounded memory.  Knows clips, not encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from undersong.corpora import UnreadableAudioError, inaudible_reason, load_clip
from undersong.corpora.sound.ahead import THREADS, threaded_map
from undersong.corpora.sound.audible import MIN_SOUND_SECONDS
from undersong.types import Clip, Quarantined, Sample

MAX_CLIPS_AHEAD = 64  # clips at most that wait decoded
SECONDS_AHEAD = 1_200  # and about this much sound: 77 MB at 16 kHz
BLOCK = 256  # clips that are held together and sorted by length, so that a batch wastes little padding
SECONDS_PER_BLOCK = 3_600  # where clips are long, fewer


def decode_clips(samples: Sequence[Sample], rate: int, threads: int = THREADS) -> Iterator[Clip | Quarantined]:
    """Each sample's clip at `rate` Hz, or why it has none, in the samples' order.

    How many clips are decoded ahead depends on the longest seen: four hours of recordings must not wait in memory.
    """
    longest = 0.0

    def capacity() -> int:
        return max(threads, min(MAX_CLIPS_AHEAD, int(SECONDS_AHEAD / longest)) if longest else 2 * threads)

    for clip in threaded_map(lambda sample: audible(sample, rate), samples, capacity, threads):
        longest = max(longest, _duration(clip))
        yield clip


def audible(sample: Sample, rate: int) -> Clip | Quarantined:
    """The clip of a sample, or why there is nothing to hear."""
    if sample.audio is None:
        return Quarantined(sample.id, "no audio")
    try:
        clip = load_clip(sample, rate=rate)
    except UnreadableAudioError as error:
        return Quarantined(sample.id, error.reason)
    # An encoder may well give silence a vector; it would say nothing about the item.  Whether a clip is too short as a
    # whole is for the encoder to say, by its frames.
    reason = inaudible_reason(clip, min(MIN_SOUND_SECONDS, clip_seconds(clip) / 2))
    return clip if reason is None else Quarantined(sample.id, reason)


def length_sorted_blocks(clips: Iterable[Clip | Quarantined], quarantined: list[Quarantined]) -> Iterator[list[Clip]]:
    """Clips in blocks, sorted by length (ties as they came); what is none goes to `left_out`."""
    block: list[Clip] = []
    block_seconds = 0.0
    for item in clips:
        if isinstance(item, Quarantined):
            quarantined.append(item)
            continue
        block.append(item)
        block_seconds += clip_seconds(item)
        if len(block) == BLOCK or block_seconds >= SECONDS_PER_BLOCK:
            yield sorted(block, key=_sample_count)
            block, block_seconds = [], 0.0
    if block:
        yield sorted(block, key=_sample_count)


def _sample_count(clip: Clip) -> int:
    return len(clip.samples)


def _duration(clip: Clip | Quarantined) -> float:
    return clip_seconds(clip) if isinstance(clip, Clip) else 0.0


def clip_seconds(clip: Clip) -> float:
    """How long a clip is."""
    return len(clip.samples) / clip.rate
