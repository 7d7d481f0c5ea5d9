"""Windowed encoding of long clips: windows of similar length share a forward pass, and running moments are pooled to
one vector per clip. A vector does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.encoders.pooling import Moments, compute_moments, pool_moments
from undersong.models.out_of_memory import empty_cache, is_oom_error
from undersong.types import Clip, PooledVector, UndersongError

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class AudioWindow:
    """Part of a clip as input of the network, without the batch axis; `frames` of its output belong to the clip."""

    values: torch.Tensor
    frames: int
    seconds: float  # of sound that the network reads for it, padding included


@dataclass(frozen=True, slots=True)
class WindowNetwork:
    """A loaded network with the functions that cut and encode windows.

    `cut_windows` cuts a clip's samples (n,) at `rate` Hz into windows. `encode_windows` runs one forward pass and
    returns the valid frames (frames, dim) float32 of each window. With `mixed_lengths`, windows of different lengths
    may share a pass; otherwise only those of one shape do. `module` is the torch module inside, and `name` that of the
    model, for the error on values that are not finite.
    """

    rate: int
    cut_windows: Callable[[np.ndarray], list[AudioWindow]]
    encode_windows: Callable[[Sequence[AudioWindow]], list[np.ndarray]]
    mixed_lengths: bool = False
    module: Any = None
    name: str = "the encoder"


@dataclass(slots=True)
class WindowedEncoder:
    """Encodes clips to pooled vectors by a network.

    One pass takes at most `seconds` of sound, padding included; this is halved when memory runs out, and stays so.
    """

    network: WindowNetwork
    pool: str
    seconds: float

    def __call__(self, clips: Sequence[Clip]) -> list[PooledVector]:
        """One vector per clip, in order; 0 frames if a clip is too short.

        Raises the errors of the network, lack of memory only if a single window does not fit; and UndersongError if
        the network computes values that are not finite.
        """
        clip_windows = [
            (row, window) for row, clip in enumerate(clips) for window in self.network.cut_windows(clip.samples)
        ]
        windows = [(row, window) for row, window in clip_windows if window.frames > 0]
        window_moments = self._encode_moments([window for _, window in windows])
        clip_parts: list[list[Moments]] = [[] for _ in clips]
        for (row, _), clip_moments in zip(windows, window_moments, strict=True):
            clip_parts[row].append(clip_moments)
        vectors = [pool_moments(clip_moments, self.pool) for clip_moments in clip_parts]
        for row, vector in enumerate(vectors):
            if self.network.module is not None and not np.isfinite(vector.vector).all():
                clip_inputs = [window for window_row, window in windows if window_row == row]
                raise self._non_finite_error(clips[row], clip_inputs)
        return vectors

    def _non_finite_error(self, clip: Clip, windows: Sequence[AudioWindow]) -> UndersongError:
        from undersong.models.finite import non_finite_error

        network = self.network
        return non_finite_error(
            network.module, network.name, f"clip {clip.id}", lambda: [network.encode_windows([w]) for w in windows]
        )

    def _encode_moments(self, windows: list[AudioWindow]) -> list[Moments]:
        """Moments of every window, in order."""
        moments_by_index: dict[int, Moments] = {}
        # Sorted by length, so that a pass wastes little padding; the order of equal lengths affects no vector.
        pending = sorted(range(len(windows)), key=lambda i: _sort_key(windows[i]))
        while pending:
            pass_size = windows_per_pass([windows[i] for i in pending], self.seconds, ragged=self.network.mixed_lengths)
            indices, outputs = pending[:pass_size], None
            try:
                outputs = self.network.encode_windows([windows[i] for i in indices])
            except (RuntimeError, MemoryError) as error:
                if not is_oom_error(error) or pass_size == 1:
                    raise
            if outputs is None:
                empty_cache()
                self.seconds = max(window.seconds for window in (windows[i] for i in indices)) * (pass_size // 2)
                continue
            moments_by_index.update(zip(indices, map(compute_moments, outputs), strict=True))
            pending = pending[pass_size:]
        return [moments_by_index[i] for i in range(len(windows))]


def windows_per_pass(windows: Sequence[AudioWindow], seconds: float, *, ragged: bool) -> int:
    """Number of the first `windows` (sorted by length) that share one pass: at least one."""
    count = 1
    while count < len(windows):
        next_window = windows[count]
        if not ragged and next_window.values.shape != windows[0].values.shape:
            break
        if (count + 1) * next_window.seconds > seconds:  # all are padded to the longest
            break
        count += 1
    return count


def consecutive_windows(samples: int, window: int) -> list[tuple[int, int]]:
    """Consecutive stretches (start, stop); the last may be shorter."""
    return [(start, min(start + window, samples)) for start in range(0, samples, window)]


def evenly_spaced_windows(samples: int, window: int) -> list[tuple[int, int]]:
    """Windows (start, stop) of one length that cover a clip evenly, with overlap if needed.

    They are for networks that give one vector per window, where a short rest would weigh as much as a full window.
    """
    if samples <= window:
        return [(0, samples)]
    count = -(-samples // window)
    return [(start, start + window) for start in np.linspace(0, samples - window, count).round().astype(int).tolist()]


def _sort_key(window: AudioWindow) -> tuple[float, ...]:
    return (window.seconds, *window.values.shape)
