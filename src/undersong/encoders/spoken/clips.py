"""Encoders of sound: load a clip, embed it, pool over its valid frames.  What differs between them is one function.

Files are decoded in threads while one process computes.  Knows clips and batches; does not know any model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.checks import validate_embeddings
from undersong.encoders.clip_encoder import clip_seconds, decode_clips, length_sorted_blocks
from undersong.encoders.spoken.oom import halve_on_oom
from undersong.types import Clip, Embeddings, PooledVector, Quarantined, Sample


@dataclass(slots=True)
class ClipEncoder:
    """An Encoder of audio: `embed` maps clips to their pooled vectors, in order.

    `batch`: how many clips, of like length, `embed` is given at once; it is halved when memory runs out.  `progress`
    hears after every batch how far it is; it may be set at any time.
    """

    name: str
    embed: Callable[[Sequence[Clip]], Sequence[PooledVector]]
    rate: int = 16_000
    batch: int = 1
    progress: ProgressCallback | None = None

    def encode(self, samples: Sequence[Sample]) -> Embeddings:
        """Samples -> vectors in the samples' order; unreadable, silent, frameless or too large clips are quarantined.

        Raises what `embed` raises, lack of memory excepted: then half the batch is tried, and a clip that does not fit
        alone is quarantined.
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
