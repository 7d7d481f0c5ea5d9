"""What was heard, under the names samples have: by clip for prompts, by sample for the internal encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from undersong.models.audio_features import AudioFeatures
from undersong.models.family import Family
from undersong.models.pooling import mean_pool
from undersong.types import Clip, PooledVector, Sample, UndersongError


def clip_key(sample: Sample) -> str:
    """What a clip's vectors are filed under: its content where that is known, so that ids may repeat across corpora."""
    return sample.pcm_hash or sample.id


@dataclass(frozen=True)
class CachedAudioEncoder:
    """The part of AudioLM an internal encoder needs, answered from what was already heard."""

    features: Mapping[str, AudioFeatures]  # by sample id
    family: Family
    view: str | None = None  # None: the decoder's inputs

    def __post_init__(self) -> None:
        if self.view is not None and self.view not in self.family.views:
            view_names = ", ".join(f"internal:{name}" for name in self.family.views)
            raise UndersongError(
                f"{self.family.name} has no view {self.view!r}; take internal (what its decoder hears), {view_names}."
            )

    def embed(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        """What the decoder heard of each clip: (valid placeholders, dim) float32."""
        return [self.features[clip.id].valid_vectors() for clip in clips]

    def pool(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """The mean over each clip's valid rows of the view, or of what the decoder heard."""
        if self.view is not None:
            return [self.features[clip.id].views[self.view] for clip in clips]
        return [mean_pool(frames) for frames in self.embed(clips)]
