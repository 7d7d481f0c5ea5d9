"""What decoding one item tells of it: how long it is, what is heard, and a fingerprint; or why it cannot be used.

Facts are small and a decoded clip is not, so a large corpus is decoded in shards and only these are kept.  Knows
samples and clips; does not know files of facts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from undersong.corpora.alike.fingerprint import fingerprint
from undersong.corpora.sound.ahead import THREADS, in_order
from undersong.corpora.sound.audible import why_inaudible
from undersong.corpora.sound.audio import Unreadable, load_clip, pcm_hash
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np

RATE = 16_000


@dataclass(frozen=True, slots=True)
class Facts:
    """Of one item.  `reason`: why it cannot be used.  `print`: (512,) float32 and the seconds that sound, of
    `alike.fingerprint`; None where there is no sound to take it of."""

    id: str
    reason: str | None = None
    seconds: float | None = None
    pcm_hash: str | None = None
    print: tuple[np.ndarray, float] | None = None


def facts_of_sample(sample: Sample) -> Facts:
    """Silence is not usable: a model may well give it a vector and a reply, which would say nothing about the item.

    Written items pass as they are.
    """
    if sample.audio is None:
        return Facts(sample.id, None if (sample.text or "").strip() else "there is neither audio nor text")
    try:
        clip = load_clip(sample, RATE)
    except Unreadable as error:
        return Facts(sample.id, error.reason)
    if reason := why_inaudible(clip):
        return Facts(sample.id, reason)
    return Facts(sample.id, None, clip.samples.size / RATE, pcm_hash(clip), fingerprint(clip))


def all_facts(samples: Sequence[Sample], tell: Callable[[int], None] | None = None) -> Iterator[Facts]:
    """Of every sample, in order, decoded in threads; `tell` hears how many are done."""
    for number, facts in enumerate(in_order(facts_of_sample, samples, lambda: 2 * THREADS)):
        if tell is not None:
            tell(number)
        yield facts


def examined(samples: Sequence[Sample], facts: Sequence[Facts]) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Usable samples with `seconds` and `pcm_hash` filled in, and why others are not.

    What a manifest said of seconds and hash of a clip is replaced by what was found.  ValueError for facts that are not
    of these samples, in their order: they may be of another run's shards.
    """
    if [one.id for one in facts] != [sample.id for sample in samples]:
        raise ValueError("the facts are not of these samples, in their order")
    kept = tuple(
        sample if sample.audio is None else replace(sample, seconds=one.seconds, pcm_hash=one.pcm_hash)
        for sample, one in zip(samples, facts)
        if one.reason is None
    )
    return kept, tuple(Quarantined(one.id, one.reason) for one in facts if one.reason is not None)


def examine(
    samples: Sequence[Sample], tell: Callable[[int], None] | None = None
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Decode every spoken item once: `examined` by its own facts."""
    return examined(samples, list(all_facts(samples, tell)))
