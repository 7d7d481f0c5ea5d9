"""What a page or an explorer shows of ranked data: samples, harmful items, vectors, and distances for a histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from undersong.types import Vectors

DATA, ORDINARY, HARM = "data", "ordinary", "harm"  # series of the histogram
MAX_HARM_ITEMS = 5_000


@dataclass(frozen=True, slots=True)
class ViewItem:
    """A sample or a harmful item: what it says, where it is from, and its clip (a path or the bytes of a file)."""

    id: str
    text: str = ""
    source: str | None = None
    speaker: str | None = None
    audio: str | bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class DataView:
    """Ranked data as it is shown.

    Attributes:
        data: Name of the data.
        verb: `check` or `screen`.
        axis: Name of the axis that ranks, and its encoder; empty if none does.
        samples: Samples shown, nearest first; n of them.
        ranks: Rank of each among all, (n,).
        distances: Distance of each to the nearest harmful item, (n,).
        nearer: Which lie nearer than ordinary data do, (n,) bool.
        harm: Harmful items shown; m of them.
        nearest: Index in `harm` of the nearest harmful item of each sample, (n,); -1 if there is none.
        vectors: Vectors of the samples, then of the harmful items, (n + m, d); None if nothing is ranked.
        total: Number of samples that are ranked.
        histogram: Distances of all items of a series, by its name: DATA, ORDINARY, HARM.
        threshold: Distance within which a sample counts as nearer; None if there are no ordinary data.
        verdict: Verdict in words, `More than ordinary`; empty for a ranking.
        sentence: The verdict, or what the ranking is, in a sentence.
        notes: What a reader has to know beside it.
        drop_command: Command that leaves out what is marked, with MARKS for the file.
        seed: Seed of what is drawn.
    """

    data: str
    verb: str
    axis: tuple[str, str]
    samples: Sequence[ViewItem]
    ranks: np.ndarray
    distances: np.ndarray
    nearer: np.ndarray
    harm: Sequence[ViewItem]
    nearest: np.ndarray
    vectors: Vectors | None
    total: int
    histogram: Mapping[str, np.ndarray]
    threshold: float | None
    verdict: str
    sentence: str
    notes: Sequence[str]
    drop_command: str
    seed: int = 0


def choose_shown(total: int, limit: int, seed: int) -> np.ndarray:
    """Positions that are shown of `total` ranked samples: all, or the nearest half of `limit` and a random rest.

    Args:
        total: Number of ranked samples.
        limit: Largest number to show.
        seed: Seed of the draw.
    """
    if total <= limit:
        return np.arange(total)
    near = limit // 2
    others = np.random.default_rng(seed).choice(np.arange(near, total), limit - near, replace=False)
    return np.concatenate([np.arange(near), np.sort(others)])


def view_file_mode(view: DataView) -> int:
    """Permissions of a file that shows a view: its owner's alone, if harmful requests can be read or heard in it."""
    return 0o600 if any(item.text is not None or item.audio is not None for item in view.harm) else 0o644


def choose_harm(
    nearest: np.ndarray, total: int, seed: int, limit: int = MAX_HARM_ITEMS
) -> tuple[np.ndarray, np.ndarray]:
    """Harmful items that are shown: those nearest to a sample, then random others; and `nearest` in their order.

    Args:
        nearest: Index of the nearest harmful item of each sample, -1 for none.
        total: Number of harmful items.
        seed: Seed of the draw.
        limit: Largest number to show, unless more are nearest to a sample.
    """
    named = np.unique(nearest[nearest >= 0])
    others = np.setdiff1d(np.arange(total), named)
    room = max(0, min(limit - len(named), len(others)))
    drawn = np.random.default_rng(seed).choice(others, room, replace=False) if room else others[:0]
    shown = np.sort(np.concatenate([named, drawn]))
    places = np.full(total + 1, -1)  # the last stands for -1
    places[shown] = np.arange(len(shown))
    return shown, places[nearest]
