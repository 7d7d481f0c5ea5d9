"""Proximity for pools whose vectors do not fit in memory: streamed in blocks, by several processes if wanted.

Held at once: the harm set, a few blocks of vectors a process, and some hundred bytes an item (its id, its distances).
The numbers are those of `proximity_table` to the last bit, because the blocks are the same.  Knows Parquet shards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.vectors import (
    SHARD,
    check_unique,
    embedding_files,
    left_out_before,
    row_groups,
    stream_embeddings,
)
from undersong.proximity.distances import BLOCK, Nearest, nearest
from undersong.proximity.table import check_quarantine, harm_by_id, parse_score, pool_mean, ranked_table
from undersong.store import replacing
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 4 * BLOCK  # vectors held at a time
Measured = tuple[Nearest, Nearest] | None
Spread = Callable[[Callable[[int], Measured], Iterable[int]], Iterable[Measured]]


@dataclass(frozen=True, slots=True)
class Unit:
    """One row group: where its usable rows lie in the pool."""

    file: Path
    group: int
    start: int
    rows: int


@dataclass
class Survey:
    """What a first pass finds: everything about the pool but its vectors."""

    ids: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    digests: bytearray = field(default_factory=bytearray)  # 16 bytes a vector
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (d,) float64

    def same(self) -> np.ndarray:
        """(n,): for each item the first one with the very same vector, by their digests."""
        pairs = np.frombuffer(bytes(self.digests), dtype=[("a", "<u8"), ("b", "<u8")])
        _, first, inverse = np.unique(pairs, return_index=True, return_inverse=True)
        return first[inverse]


def proximity_shards(
    axis: str,
    harm_set: str,
    pool: str | Path,
    harm: Embeddings,
    out: str | Path,
    *,
    score: str = "nearest",
    centre: bool = False,
    max_quarantined: float = 0.01,
    processes: int = 1,
    shard: int = SHARD,
    spread: Spread | None = None,
) -> list[Path]:
    """Score the embeddings at `pool` (a file, a folder of `embeddings-*.parquet`, or a pattern) against `harm`.

    Writes `proximity-*.parquet`, `shard` rows each, to the new folder `out`; one after another they are the table that
    `proximity_table` makes of the whole pool, with the same errors.  The pool is read twice: for its mean, and for the
    distances.  `processes` > 1 starts that many (by spawn, so a script needs its `if __name__ == "__main__"`).
    `spread` replaces them: how a function is mapped over numbers, in order, where other machines compute.
    """
    out = Path(out)
    if processes < 1 or shard < 1:
        raise UndersongError(
            f"{processes} processes and shards of {shard} rows make no sense; give at least 1 of each."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UndersongError(f"{out} exists; name a new folder.")
    _, k = parse_score(score, len(harm.ids))
    found = survey(pool)
    total = len(found.ids) + len(found.quarantined)
    check_quarantine(f"on axis {axis}", found.quarantined, total, harm.quarantined, max_quarantined)
    if not found.ids:
        raise UndersongError("The pool is empty; give at least one item.")
    harm_ids, vectors = harm_by_id(harm)
    measure = partial(_measure, units=tuple(found.units), harm=vectors, mean=found.mean, k=k)
    spread = spread or partial(_mapped, processes=processes)
    measured = list(spread(measure, range(len(found.units))))
    raw, centred = (_joined([pair[side] for pair in measured if pair is not None]) for side in (0, 1))
    table = ranked_table(axis, harm_set, found.ids, harm_ids, raw, centred, found.same(), score=score, centre=centre)
    return _write(table, out, shard)


def survey(pool: str | Path) -> Survey:
    """One pass over the embeddings at `pool`."""
    found = Survey()

    def vectors() -> Iterator[np.ndarray]:
        for file in embedding_files(pool):
            for group in range(row_groups(file)):
                start = len(found.ids)
                for part in stream_embeddings(file, group, ROWS):
                    found.ids += part.ids
                    found.quarantined += part.quarantined
                    for row in part.vectors:
                        found.digests += blake2b(row.tobytes(), digest_size=16).digest()
                    yield part.vectors
                found.units.append(Unit(file, group, start, len(found.ids) - start))

    found.mean = pool_mean(_blocks(vectors(), BLOCK))
    found.quarantined += left_out_before(pool)
    check_unique([*found.ids, *(item.id for item in found.quarantined)], pool)
    return found


def _measure(number: int, *, units: Sequence[Unit], harm: np.ndarray, mean: np.ndarray, k: int) -> Measured:
    """Raw and centred distances of the blocks that begin in a unit; None where none does.

    The last of these blocks may end in the units after it: so each block is whole, wherever files end.
    """
    unit, end = units[number], units[-1].start + units[-1].rows
    start, stop = _rounded_up(unit.start), min(_rounded_up(unit.start + unit.rows), end)
    if start >= stop:
        return None
    parts = (part.vectors for u in units[number:] for part in stream_embeddings(u.file, u.group, ROWS))
    rows = _cut(parts, start - unit.start, stop - start)
    pairs = [(nearest(b, harm, k=k), nearest(b, harm, k=k, centre=mean)) for b in _blocks(rows, ROWS)]
    return _joined([raw for raw, _ in pairs]), _joined([centred for _, centred in pairs])


def _rounded_up(row: int) -> int:
    return -(-row // BLOCK) * BLOCK


def _cut(parts: Iterable[np.ndarray], skip: int, count: int) -> Iterator[np.ndarray]:
    """`count` rows after the first `skip`; reads no further."""
    for part in parts:
        wanted = part[skip : skip + count]
        skip, count = max(0, skip - len(part)), count - len(wanted)
        yield wanted
        if count == 0:
            return


def _blocks(parts: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of `rows`, the last with what is left; each is good until the next is asked for."""
    block, filled = np.empty((0, 0), np.float32), 0
    for part in parts:
        if len(part) and not len(block):
            block = np.empty((rows, part.shape[1]), np.float32)
        if len(part) and part.shape[1] != block.shape[1]:
            a, b = block.shape[1], part.shape[1]
            raise UndersongError(f"Vectors of the pool have {a} and {b} dimensions; embed all with one encoder.")
        while len(part):
            taken = min(rows - filled, len(part))
            block[filled : filled + taken] = part[:taken]
            part, filled = part[taken:], filled + taken
            if filled == rows:
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _mapped(measure: Callable[[int], Measured], numbers: Iterable[int], processes: int) -> Iterator[Measured]:
    """In order, here or in processes of their own."""
    if processes == 1:
        yield from map(measure, numbers)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure, numbers)


def _joined(parts: Sequence[Nearest]) -> Nearest:
    return Nearest(*(np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Nearest)))


def _write(table: pa.Table, out: Path, shard: int) -> list[Path]:
    """All shards, or none."""
    import pyarrow.parquet as pq

    names = []
    with replacing(out) as folder:
        folder.mkdir()
        for number, start in enumerate(range(0, len(table), shard)):
            names.append(f"proximity-{number:05d}.parquet")
            pq.write_table(table.slice(start, shard), folder / names[-1])
    return [out / name for name in names]
