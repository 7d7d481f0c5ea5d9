"""Audio files decoded in threads, ahead of the encoder, in order and in bounded memory.  Knows clips, not encoders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from undersong.corpora import Unreadable, load_clip, why_inaudible
from undersong.corpora.sound.ahead import THREADS, in_order
from undersong.corpora.sound.audible import LEAST
from undersong.types import Clip, Quarantined, Sample

AHEAD = 64  # clips at most that wait decoded
SECONDS_AHEAD = 1_200  # and about this much sound: 77 MB at 16 kHz
BLOCK = 256  # clips that are held together and sorted by length, so that a batch wastes little padding
SECONDS_BLOCK = 3_600  # where clips are long, fewer


def decoded(samples: Sequence[Sample], rate: int, threads: int = THREADS) -> Iterator[Clip | Quarantined]:
    """Each sample's clip at `rate` Hz, or why it has none, in the samples' order.

    How many clips are decoded ahead depends on the longest seen: four hours of recordings must not wait in memory.
    """
    longest = 0.0

    def room() -> int:
        return max(threads, min(AHEAD, int(SECONDS_AHEAD / longest)) if longest else 2 * threads)

    for found in in_order(lambda sample: audible(sample, rate), samples, room, threads):
        longest = max(longest, _heard(found))
        yield found


def audible(sample: Sample, rate: int) -> Clip | Quarantined:
    """The clip of a sample, or why there is nothing to hear."""
    if sample.audio is None:
        return Quarantined(sample.id, "no audio")
    try:
        clip = load_clip(sample, rate=rate)
    except Unreadable as error:
        return Quarantined(sample.id, error.reason)
    # An encoder may well give silence a vector; it would say nothing about the item.  Whether a clip is too short as a
    # whole is for the encoder to say, by its frames.
    reason = why_inaudible(clip, min(LEAST, seconds(clip) / 2))
    return clip if reason is None else Quarantined(sample.id, reason)


def blocks(found: Iterable[Clip | Quarantined], left_out: list[Quarantined]) -> Iterator[list[Clip]]:
    """Clips in blocks, sorted by length (ties as they came); what is none goes to `left_out`."""
    block: list[Clip] = []
    held = 0.0
    for item in found:
        if isinstance(item, Quarantined):
            left_out.append(item)
            continue
        block.append(item)
        held += seconds(item)
        if len(block) == BLOCK or held >= SECONDS_BLOCK:
            yield sorted(block, key=_length)
            block, held = [], 0.0
    if block:
        yield sorted(block, key=_length)


def _length(clip: Clip) -> int:
    return len(clip.samples)


def _heard(found: Clip | Quarantined) -> float:
    return seconds(found) if isinstance(found, Clip) else 0.0


def seconds(clip: Clip) -> float:
    """How long a clip is."""
    return len(clip.samples) / clip.rate
