"""Encoders of sound: load a clip, embed it, pool over its valid frames.  What differs between them is one function.

Knows clips and pooling; does not know any model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from undersong.corpora import Unreadable, load_clip
from undersong.encoders.checks import guard
from undersong.types import Clip, Embeddings, Pooled, Quarantined, Sample

# Clips of one block are held in memory together and sorted by length, so that a batch wastes little padding.
BLOCK = 256


@dataclass(slots=True)
class ClipEncoder:
    """An Encoder of audio: `embed` maps clips to their pooled vectors, in order."""

    name: str
    embed: Callable[[Sequence[Clip]], Sequence[Pooled]]
    rate: int = 16_000
    batch: int = 1

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Samples -> vectors in the samples' order; unreadable, silent or frameless clips are quarantined."""
        quarantined: list[Quarantined] = []
        pooled: dict[str, Pooled] = {}
        sounds = _audible(samples, self.rate, quarantined)
        while block := sorted(islice(sounds, BLOCK), key=lambda clip: len(clip.samples)):
            for start in range(0, len(block), self.batch):
                batch = block[start : start + self.batch]
                pooled.update(zip((clip.id for clip in batch), self.embed(batch), strict=True))
        quarantined += [Quarantined(id, "too short: no valid frame") for id, p in pooled.items() if p.frames == 0]
        ids = [sample.id for sample in samples if sample.id in pooled and pooled[sample.id].frames > 0]
        vectors = np.stack([pooled[id].vector for id in ids]) if ids else np.zeros((0, 0), dtype=np.float32)
        return guard(self.name, ids, vectors, [pooled[id].frames for id in ids], quarantined)


def _audible(samples: Sequence[Sample], rate: int, quarantined: list[Quarantined]) -> Iterator[Clip]:
    """Clips one after the other; those that hold no sound go to `quarantined`."""
    for sample in samples:
        if sample.audio is None:
            quarantined.append(Quarantined(sample.id, "no audio"))
            continue
        try:
            clip = load_clip(sample, rate=rate)
        except Unreadable as error:
            quarantined.append(Quarantined(sample.id, error.reason))
            continue
        # An encoder may well give silence a vector; it would say nothing about the item.
        if np.ptp(clip.samples) == 0:
            quarantined.append(Quarantined(sample.id, "silent audio"))
            continue
        yield clip
