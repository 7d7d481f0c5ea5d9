"""Stages for what does not fit in memory or in a day: in shards, on one machine, by many jobs, or on Ray."""

from undersong.scale.embedding_job import EmbeddingResult, embed_shards
from undersong.scale.streamed_proximity import proximity_shards

__all__ = ["EmbeddingResult", "embed_shards", "proximity_shards"]
