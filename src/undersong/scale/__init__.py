"""Stages for what does not fit in memory or in a day: in shards, on one machine, by many jobs, or on Ray."""

from undersong.scale.shards import proximity_shards
from undersong.scale.work import EmbeddingResult, embed_shards

__all__ = ["EmbeddingResult", "embed_shards", "proximity_shards"]
