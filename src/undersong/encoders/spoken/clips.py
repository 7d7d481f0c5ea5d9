"""Encoders of sound: load a clip, embed it, pool over its valid frames.  What differs between them is one function.

Files are decoded in threads while one process computes.  Knows clips and batches; does not know any model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.encoders.checks import guard
from undersong.encoders.progress import Watcher, watch
from undersong.encoders.spoken.decoding import blocks, decoded, seconds
from undersong.encoders.spoken.oom import halving
from undersong.types import Clip, Embeddings, Pooled, Quarantined, Sample


@dataclass(slots=True)
class ClipEncoder:
    """An Encoder of audio: `embed` maps clips to their pooled vectors, in order.

    `batch`: how many clips, of like length, `embed` is given at once; it is halved when memory runs out.  `progress`
    hears after every batch how far it is; it may be set at any time.
    """

    name: str
    embed: Callable[[Sequence[Clip]], Sequence[Pooled]]
    rate: int = 16_000
    batch: int = 1
    progress: Watcher | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Samples -> vectors in the samples' order; unreadable, silent, frameless or too large clips are quarantined.

        Raises what `embed` raises, lack of memory excepted: then half the batch is tried, and a clip that does not fit
        alone is quarantined.
        """
        quarantined: list[Quarantined] = []
        pooled: dict[str, Pooled] = {}
        clock = watch(len(samples), self.progress)
        for block in blocks(decoded(samples, self.rate), quarantined):
            for batch, made in halving(self.embed, block, self.batch):
                if made is None:
                    quarantined.append(Quarantined(batch[0].id, f"out of memory: {seconds(batch[0]):.1f} s of audio"))
                else:
                    pooled.update(zip((clip.id for clip in batch), made, strict=True))
                clock.at(len(pooled) + len(quarantined))
        quarantined += [Quarantined(id, "too short: no valid frame") for id, p in pooled.items() if p.frames == 0]
        clock.at(len(samples))
        ids = [sample.id for sample in samples if sample.id in pooled and pooled[sample.id].frames > 0]
        vectors = np.stack([pooled[id].vector for id in ids]) if ids else np.zeros((0, 0), dtype=np.float32)
        return guard(self.name, ids, vectors, [pooled[id].frames for id in ids], quarantined)
