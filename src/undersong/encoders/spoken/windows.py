"""The one way a speech network hears clips: cut into windows, windows of like length in one pass, pooled by clip.

A vector does not depend on its batch: windows share a pass only where they have one length, or where the network masks
what pads the shorter ones.  Knows networks by three functions; does not know any model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.spoken.oom import give_back, ran_out
from undersong.encoders.spoken.speech_pool import Moments, moments, pooled
from undersong.types import Clip, Pooled

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Window:
    """A stretch of a clip as the network takes it, without the batch axis; `frames` of its output are of the clip."""

    values: torch.Tensor
    frames: int
    seconds: float  # of sound that the network reads for it, padding included


@dataclass(frozen=True, slots=True)
class Network:
    """A loaded network: `cut` makes windows of a clip's samples (n,) at `rate` Hz, `hear` one pass over several
    windows, each -> its valid frames (frames, dim) float32.

    `ragged`: windows of several lengths may share a pass; without it only those of one shape do.
    """

    rate: int
    cut: Callable[[np.ndarray], list[Window]]
    hear: Callable[[Sequence[Window]], list[np.ndarray]]
    ragged: bool = False


@dataclass(slots=True)
class Ear:
    """Clips -> pooled vectors by a network.  `seconds`: how much sound, padding included, one pass may take; it is
    halved when memory runs out, and stays so."""

    network: Network
    pool: str
    seconds: float

    def __call__(self, clips: Sequence[Clip]) -> list[Pooled]:
        """One vector a clip, in order; 0 frames where a clip is too short for any.

        Raises what the network raises; lack of memory only where a single window does not fit.
        """
        cut = [(row, window) for row, clip in enumerate(clips) for window in self.network.cut(clip.samples)]
        windows = [(row, window) for row, window in cut if window.frames > 0]
        heard = self._heard([window for _, window in windows])
        parts: list[list[Moments]] = [[] for _ in clips]
        for (row, _), part in zip(windows, heard, strict=True):
            parts[row].append(part)
        return [pooled(part, self.pool) for part in parts]

    def _heard(self, windows: list[Window]) -> list[Moments]:
        """Of every window, in order."""
        heard: dict[int, Moments] = {}
        # By length, so that a pass wastes little; the order among equals does not matter to any vector.
        waiting = sorted(range(len(windows)), key=lambda i: _shape(windows[i]))
        while waiting:
            size = fitting([windows[i] for i in waiting], self.seconds, ragged=self.network.ragged)
            rows, whole = waiting[:size], None
            try:
                whole = self.network.hear([windows[i] for i in rows])
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error) or size == 1:
                    raise
            if whole is None:
                give_back()
                self.seconds = max(window.seconds for window in (windows[i] for i in rows)) * (size // 2)
                continue
            heard.update(zip(rows, map(moments, whole), strict=True))
            waiting = waiting[size:]
        return [heard[i] for i in range(len(windows))]


def fitting(windows: Sequence[Window], seconds: float, *, ragged: bool) -> int:
    """How many of the first `windows` (sorted by length) go through in one pass: at least one."""
    size = 1
    while size < len(windows):
        following = windows[size]
        if not ragged and following.values.shape != windows[0].values.shape:
            break
        if (size + 1) * following.seconds > seconds:  # all are padded to the longest
            break
        size += 1
    return size


def consecutive(samples: int, window: int) -> list[tuple[int, int]]:
    """Stretches (start, stop) one after the other, the last as long as is left."""
    return [(start, min(start + window, samples)) for start in range(0, samples, window)]


def spread(samples: int, window: int) -> list[tuple[int, int]]:
    """Stretches of one length that cover a clip evenly, overlapping where they must: for networks that give a whole
    window one vector, where a short rest would weigh as much as a full window."""
    if samples <= window:
        return [(0, samples)]
    count = -(-samples // window)
    return [(start, start + window) for start in np.linspace(0, samples - window, count).round().astype(int).tolist()]


def _shape(window: Window) -> tuple[float, ...]:
    return (window.seconds, *window.values.shape)
