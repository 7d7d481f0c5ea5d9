"""Stages for what does not fit in memory, on the cores of one machine.  Ray comes later."""

from undersong.scale.shards import proximity_shards

__all__ = ["proximity_shards"]
