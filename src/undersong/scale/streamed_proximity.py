"""Proximity of a pool that does not fit in memory, streamed in blocks; same numbers as `proximity_table`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.embeddings import (
    ROWS_PER_FILE,
    check_unique,
    embedding_files,
    read_quarantine,
    row_groups,
    stream_embeddings,
)
from undersong.proximity.distances import BLOCK, NearestDistances, nearest_distances
from undersong.proximity.table import check_quarantine, harm_by_id, parse_score, pool_mean, ranked_table
from undersong.store import atomic_replacement
from undersong.types import Embeddings, Quarantined, UndersongError

if TYPE_CHECKING:
    import pyarrow as pa

STREAM_ROWS = 4 * BLOCK  # vectors held at a time
BlockDistances = tuple[NearestDistances, NearestDistances] | None
MeasureScheduler = Callable[[Callable[[int], BlockDistances], Iterable[int]], Iterable[BlockDistances]]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group: where its usable rows lie in the pool."""

    file: Path
    group: int
    start: int
    rows: int


@dataclass
class PoolSurvey:
    """What a first pass finds: everything about the pool but its vectors."""

    ids: list[str] = field(default_factory=list)
    quarantined: list[Quarantined] = field(default_factory=list)
    units: list[RowGroup] = field(default_factory=list)
    digests: bytearray = field(default_factory=bytearray)  # 16 bytes a vector
    mean: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (d,) float64

    def first_duplicates(self) -> np.ndarray:
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
    center: bool = False,
    max_quarantined: float = 0.01,
    processes: int = 1,
    shard: int = ROWS_PER_FILE,
    scheduler: MeasureScheduler | None = None,
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
    pool_survey = survey_pool(pool)
    total = len(pool_survey.ids) + len(pool_survey.quarantined)
    check_quarantine(f"on axis {axis}", pool_survey.quarantined, total, harm.quarantined, max_quarantined)
    if not pool_survey.ids:
        raise UndersongError("The pool is empty; give at least one item.")
    harm_ids, vectors = harm_by_id(harm)
    measure = partial(_measure_row_group, units=tuple(pool_survey.units), harm=vectors, mean=pool_survey.mean, k=k)
    scheduler = scheduler or partial(_map_in_processes, processes=processes)
    distances = list(scheduler(measure, range(len(pool_survey.units))))
    raw, centred = (_concatenate_distances([pair[side] for pair in distances if pair is not None]) for side in (0, 1))
    table = ranked_table(
        axis,
        harm_set,
        pool_survey.ids,
        harm_ids,
        raw,
        centred,
        pool_survey.first_duplicates(),
        score=score,
        center=center,
    )
    return _write_table(table, out, shard)


def survey_pool(pool: str | Path) -> PoolSurvey:
    """One pass over the embeddings at `pool`."""
    pool_survey = PoolSurvey()

    def vectors() -> Iterator[np.ndarray]:
        for file in embedding_files(pool):
            for group in range(row_groups(file)):
                start = len(pool_survey.ids)
                for chunk in stream_embeddings(file, group, STREAM_ROWS):
                    pool_survey.ids += chunk.ids
                    pool_survey.quarantined += chunk.quarantined
                    for row in chunk.vectors:
                        pool_survey.digests += blake2b(row.tobytes(), digest_size=16).digest()
                    yield chunk.vectors
                pool_survey.units.append(RowGroup(file, group, start, len(pool_survey.ids) - start))

    pool_survey.mean = pool_mean(_rebatch_rows(vectors(), BLOCK))
    pool_survey.quarantined += read_quarantine(pool)
    check_unique([*pool_survey.ids, *(item.id for item in pool_survey.quarantined)], pool)
    return pool_survey


def _measure_row_group(
    number: int, *, units: Sequence[RowGroup], harm: np.ndarray, mean: np.ndarray, k: int
) -> BlockDistances:
    """Raw and centred distances of the blocks that begin in a unit; None where none does.

    The last of these blocks may end in the units after it: so each block is whole, wherever files end.
    """
    unit, end = units[number], units[-1].start + units[-1].rows
    start, stop = _round_up_to_block(unit.start), min(_round_up_to_block(unit.start + unit.rows), end)
    if start >= stop:
        return None
    chunks = (chunk.vectors for u in units[number:] for chunk in stream_embeddings(u.file, u.group, STREAM_ROWS))
    rows = _take_rows(chunks, start - unit.start, stop - start)
    pairs = [
        (nearest_distances(b, harm, k=k), nearest_distances(b, harm, k=k, center=mean))
        for b in _rebatch_rows(rows, STREAM_ROWS)
    ]
    return _concatenate_distances([raw for raw, _ in pairs]), _concatenate_distances([centred for _, centred in pairs])


def _round_up_to_block(row: int) -> int:
    return -(-row // BLOCK) * BLOCK


def _take_rows(chunks: Iterable[np.ndarray], skip: int, count: int) -> Iterator[np.ndarray]:
    """`count` rows after the first `skip`; reads no further."""
    for chunk in chunks:
        taken_rows = chunk[skip : skip + count]
        skip, count = max(0, skip - len(chunk)), count - len(taken_rows)
        yield taken_rows
        if count == 0:
            return


def _rebatch_rows(chunks: Iterable[np.ndarray], rows: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of `rows`, the last with what is left; each is good until the next is asked for."""
    block, filled = np.empty((0, 0), np.float32), 0
    for chunk in chunks:
        if len(chunk) and not len(block):
            block = np.empty((rows, chunk.shape[1]), np.float32)
        if len(chunk) and chunk.shape[1] != block.shape[1]:
            a, b = block.shape[1], chunk.shape[1]
            raise UndersongError(f"Vectors of the pool have {a} and {b} dimensions; embed all with one encoder.")
        while len(chunk):
            count = min(rows - filled, len(chunk))
            block[filled : filled + count] = chunk[:count]
            chunk, filled = chunk[count:], filled + count
            if filled == rows:
                yield block
                filled = 0
    if filled:
        yield block[:filled]


def _map_in_processes(
    measure: Callable[[int], BlockDistances], numbers: Iterable[int], processes: int
) -> Iterator[BlockDistances]:
    """In order, here or in processes of their own."""
    if processes == 1:
        yield from map(measure, numbers)
        return
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        yield from pool.map(measure, numbers)


def _concatenate_distances(pieces: Sequence[NearestDistances]) -> NearestDistances:
    return NearestDistances(
        *(np.concatenate([getattr(piece, column.name) for piece in pieces]) for column in fields(NearestDistances))
    )


def _write_table(table: pa.Table, out: Path, shard: int) -> list[Path]:
    """All shards, or none."""
    import pyarrow.parquet as pq

    names = []
    with atomic_replacement(out) as folder:
        folder.mkdir()
        for number, start in enumerate(range(0, len(table), shard)):
            names.append(f"proximity-{number:05d}.parquet")
            pq.write_table(table.slice(start, shard), folder / names[-1])
    return [out / name for name in names]
