"""Embedding a corpus in shards: killed, it loses the shard in progress; split, many jobs do it together.

A shard is one call of the encoder, so it is the same bits whoever makes it, in whatever order.  Knows corpora and
encoders by their protocol; does not know Ray (`ray_engine.py` hands the same shards to its workers).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from undersong.encoders import ENCODERS_THAT_FIT, make_encoder
from undersong.encoders.options import parse_encoder
from undersong.encoders.progress import Watcher, watch
from undersong.encoders.vectors import check_unique
from undersong.scale.parts import Parts
from undersong.types import Embeddings, Encoder, Quarantined, Sample, UndersongError

ROWS = 4096  # items a shard: what a kill may cost
FEW = 32  # items that may well have one and the same vector (copies of a clip) without the encoder being at fault
VERSION = 1  # of what a shard holds


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be embedded (`samples`; `left_out` were lost before), by what `make` makes, and where shards lie."""

    encoder: str
    make: Callable[[], Encoder]
    samples: tuple[Sample, ...]
    left_out: tuple[Quarantined, ...]
    parts: Parts

    def finish(self) -> None:
        """`Parts.finish` with what was lost before any encoder; its errors."""
        self.parts.finish({"encoder": self.encoder}, self.left_out)


@dataclass(frozen=True, slots=True)
class Embedded:
    """What a call did: `made` of `shards` shards.  `folder` holds the embeddings when `complete`, else what there is;
    `quarantined` is known when complete."""

    folder: Path
    complete: bool
    shards: int
    made: int
    quarantined: int | None = None


def embed_shards(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    *,
    shard: str | None = None,
    rows: int = ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
    progress: Watcher | None = None,
) -> Embedded:
    """Embed `samples` (or the manifest of that name) into the new folder `folder`: `embeddings-00000.parquet` and so
    on, `rows` items each, `quarantine.parquet` and `work.json`.

    Without `shard`: makes the shards that are missing, checks that all are there, and gives the folder its name; the
    same question again is a look-up.  `shard` (`"i/n"`, i from 1): makes every n-th shard and leaves the rest, and the
    folder's name, to the other jobs and to a last call without `shard`.
    `fit`: what text encoders are fitted on (default: the samples; give the pool and the harm set together).  `device`:
    where it computes.  `make`: how the encoder is made, where it takes more than `make_encoder` knows.  `version`: what
    else the vectors depend on and the spec does not say (the hash of the weights).  Audio files are known by path and
    `pcm_hash`: one that changes under the same name without a hash is not noticed.
    Raises UndersongError for an unknown encoder, items that cannot be told apart, a folder that holds something else,
    damaged shards, and an encoder that gives all items one vector.
    """
    work = plan(samples, encoder, folder, rows=rows, fit=fit, device=device, make=make, version=version)
    turn = parse_shard(shard)
    if work.parts.finished():
        return done(work, 0)
    numbers = [number for number in work.parts.missing() if turn(number)]
    if numbers:
        shards = ((number, work.samples[work.parts.span(number)]) for number in numbers)
        run(work.parts, work.make(), shards, watch_items(work.parts, numbers, progress))
    return concluded(work, len(numbers), shard)


def plan(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    *,
    rows: int = ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
) -> Work:
    """The work of `embed_shards`, nothing done yet."""
    if rows < 1:
        raise UndersongError(f"Shards of {rows} items make no sense; give at least 1.")
    encoder = encoder if make else parse_encoder(encoder).canonical  # before any item is read
    given, left_out = _items(samples)
    check_unique([*(sample.id for sample in given), *(item.id for item in left_out)], "the samples")
    if not given:
        raise UndersongError("There is nothing to embed; give at least one item.")
    fits = make is None and encoder.partition(":")[0] in ENCODERS_THAT_FIT
    learned = tuple(given if fit is None else fit) if fits else ()
    question = hashlib.sha256()
    for value in (VERSION, encoder, version, device, rows, len(given), digest(given), digest(learned)):
        question.update(f"{value}\n".encode())
    for item in left_out:
        question.update(_sized(item.id) + _sized(item.reason))
    parts = Parts(Path(folder), question.hexdigest(), len(given), rows)
    make = make or partial(make_encoder, encoder, fit=learned, device=device)
    return Work(encoder, make, given, left_out, parts)


def parse_shard(shard: str | None) -> Callable[[int], bool]:
    """`"i/n"` -> whether a shard number is that job's turn; None: all are.  Raises UndersongError for anything else."""
    if shard is None:
        return lambda _number: True
    found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    i, n = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= i <= n:
        raise UndersongError(
            f"Shard {shard!r} is no i/n with i from 1 to n; write 1/{n or 8} for the first of {n or 8}."
        )
    # Every n-th and not a stretch: corpora are often sorted by length, and the jobs are to end together.
    return lambda number: number % n == i - 1


def run(
    parts: Parts, encoder: Encoder, shards: Iterable[tuple[int, Sequence[Sample]]], tell: Callable[[int], None]
) -> None:
    """Embed and write numbered shards; `tell` hears the number of each when it is safe."""
    for number, samples in shards:
        parts.write(number, embed(encoder, samples))
        tell(number)


def embed(encoder: Encoder, samples: Sequence[Sample]) -> Embeddings:
    """One shard's vectors, every item accounted for.

    An encoder refuses items that all get one vector.  A few in a shard may be copies of one clip, so these are asked
    one by one; whether all are equal is asked of the whole corpus at the end.
    """
    try:
        made = encoder.encode(samples)
    except UndersongError:
        if not 1 < len(samples) <= FEW:
            raise
        made = _joined([encoder.encode([sample]) for sample in samples])
    accounted = sorted((*made.ids, *(item.id for item in made.quarantined)))
    if accounted != sorted(sample.id for sample in samples):
        raise UndersongError(
            f"Encoder {encoder.name} accounted for {len(accounted)} items where it was given {len(samples)}; every one "
            "must be embedded or quarantined, once: mend the encoder."
        )
    return made


def _joined(single: Sequence[Embeddings]) -> Embeddings:
    return Embeddings(
        tuple(id for one in single for id in one.ids),
        np.concatenate([one.vectors for one in single if one.ids] or [np.zeros((0, 0), np.float32)]),
        np.concatenate([one.frames for one in single]),
        tuple(item for one in single for item in one.quarantined),
    )


def watch_items(parts: Parts, numbers: Sequence[int], progress: Watcher | None) -> Callable[[int], None]:
    """Counts the items of the shards of this call as they get done."""
    sizes = {number: parts.span(number).stop - parts.span(number).start for number in numbers}
    clock, so_far = watch(sum(sizes.values()), progress), 0

    def tell(number: int) -> None:
        nonlocal so_far
        so_far += sizes[number]
        clock.at(so_far)

    return tell


def concluded(work: Work, made: int, shard: str | None) -> Embedded:
    """What a call returns after its shards are done."""
    if shard is not None:
        return Embedded(work.parts.draft, False, work.parts.shards, made)
    work.finish()
    return done(work, made)


def done(work: Work, made: int) -> Embedded:
    """What a call returns of a finished folder; `made`: the shards that this call made."""
    return Embedded(work.parts.folder, True, work.parts.shards, made, work.parts.quarantined())


def digest(samples: Sequence[Sample]) -> str:
    """SHA-256 over what encoders see of the samples, in order."""
    whole = hashlib.sha256()
    for sample in samples:
        audio = hashlib.sha256(sample.audio).hexdigest() if isinstance(sample.audio, bytes) else sample.audio
        for value in (sample.id, audio, sample.text, sample.pcm_hash):
            whole.update(_sized(value))
    return whole.hexdigest()


def _sized(value: str | None) -> bytes:
    """No two lists of values are one text: each says its length; None has none."""
    coded = b"" if value is None else value.encode("utf-8", "surrogateescape")
    return (b"-:" if value is None else f"{len(coded)}:".encode()) + coded


def _items(samples: Sequence[Sample] | str | Path) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    if not isinstance(samples, str | Path):
        return tuple(samples), ()
    from undersong.corpora import open_corpus

    manifest = open_corpus(str(samples))
    return manifest.samples, manifest.quarantined
