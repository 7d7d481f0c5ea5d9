"""Embed a corpus in resumable shards, in one process or split over jobs with `--shard i/n`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from undersong.encoders import ENCODERS_THAT_FIT, make_encoder
from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.encoders.embeddings import check_unique
from undersong.encoders.spec import parse_encoder
from undersong.scale.embedding_shards import EmbeddingShards
from undersong.types import Embeddings, Encoder, Quarantined, Sample, UndersongError

SHARD_ROWS = 4096  # items a shard: what a kill may cost
MAX_DUPLICATES = (
    32  # items that may well have one and the same vector (copies of a clip) without the encoder being at fault
)
VERSION = 1  # of what a shard holds


@dataclass(frozen=True, slots=True)
class EmbeddingJob:
    """What is to be embedded (`samples`; `left_out` were lost before), by what `make` makes, and where shards lie."""

    encoder: str
    make: Callable[[], Encoder]
    samples: tuple[Sample, ...]
    left_out: tuple[Quarantined, ...]
    shard_set: EmbeddingShards

    def finish(self) -> None:
        """`Parts.finish` with what was lost before any encoder; its errors."""
        self.shard_set.finish({"encoder": self.encoder}, self.left_out)


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """What a call did: `made` of `shards` shards.  `folder` holds the embeddings when `complete`, else what there is;
    `quarantined` is known when complete."""

    folder: Path
    complete: bool
    shard_count: int
    computed: int
    quarantined: int | None = None


def embed_shards(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    *,
    shard: str | None = None,
    rows: int = SHARD_ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
    progress: ProgressCallback | None = None,
) -> EmbeddingResult:
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
    job = plan_embedding(samples, encoder, folder, rows=rows, fit=fit, device=device, make=make, version=version)
    is_assigned = parse_shard(shard)
    if job.shard_set.is_finished():
        return finished_result(job, 0)
    numbers = [number for number in job.shard_set.missing_shards() if is_assigned(number)]
    if numbers:
        shards = ((number, job.samples[job.shard_set.item_slice(number)]) for number in numbers)
        embed_assigned_shards(job.shard_set, job.make(), shards, shard_progress(job.shard_set, numbers, progress))
    return finish_job(job, len(numbers), shard)


def plan_embedding(
    samples: Sequence[Sample] | str | Path,
    encoder: str,
    folder: str | Path,
    *,
    rows: int = SHARD_ROWS,
    fit: Sequence[Sample] | None = None,
    device: str = "cpu",
    make: Callable[[], Encoder] | None = None,
    version: str = "",
) -> EmbeddingJob:
    """The work of `embed_shards`, nothing done yet."""
    if rows < 1:
        raise UndersongError(f"Shards of {rows} items make no sense; give at least 1.")
    encoder = encoder if make else parse_encoder(encoder).canonical  # before any item is read
    items, left_out = _read_items(samples)
    check_unique([*(sample.id for sample in items), *(item.id for item in left_out)], "the samples")
    if not items:
        raise UndersongError("There is nothing to embed; give at least one item.")
    needs_fit = make is None and encoder.partition(":")[0] in ENCODERS_THAT_FIT
    fit_samples = tuple(items if fit is None else fit) if needs_fit else ()
    key_hasher = hashlib.sha256()
    for value in (
        VERSION,
        encoder,
        version,
        device,
        rows,
        len(items),
        samples_digest(items),
        samples_digest(fit_samples),
    ):
        key_hasher.update(f"{value}\n".encode())
    for item in left_out:
        key_hasher.update(_length_prefixed(item.id) + _length_prefixed(item.reason))
    shard_set = EmbeddingShards(Path(folder), key_hasher.hexdigest(), len(items), rows)
    make = make or partial(make_encoder, encoder, fit=fit_samples, device=device)
    return EmbeddingJob(encoder, make, items, left_out, shard_set)


def parse_shard(shard: str | None) -> Callable[[int], bool]:
    """`"i/n"` -> whether a shard number is that job's turn; None: all are.  Raises UndersongError for anything else."""
    if shard is None:
        return lambda _number: True
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= i <= n:
        raise UndersongError(
            f"Shard {shard!r} is no i/n with i from 1 to n; write 1/{n or 8} for the first of {n or 8}."
        )
    # Every n-th and not a stretch: corpora are often sorted by length, and the jobs are to end together.
    return lambda number: number % n == i - 1


def embed_assigned_shards(
    shard_set: EmbeddingShards,
    encoder: Encoder,
    shards: Iterable[tuple[int, Sequence[Sample]]],
    on_done: Callable[[int], None],
) -> None:
    """Embed and write numbered shards; `tell` hears the number of each when it is safe."""
    for number, samples in shards:
        shard_set.write_shard(number, embed_samples(encoder, samples))
        on_done(number)


def embed_samples(encoder: Encoder, samples: Sequence[Sample]) -> Embeddings:
    """One shard's vectors, every item accounted for.

    An encoder refuses items that all get one vector.  A few in a shard may be copies of one clip, so these are asked
    one by one; whether all are equal is asked of the whole corpus at the end.
    """
    try:
        embeddings = encoder.encode(samples)
    except UndersongError:
        if not 1 < len(samples) <= MAX_DUPLICATES:
            raise
        embeddings = _concatenate_embeddings([encoder.encode([sample]) for sample in samples])
    accounted = sorted((*embeddings.ids, *(item.id for item in embeddings.quarantined)))
    if accounted != sorted(sample.id for sample in samples):
        raise UndersongError(
            f"Encoder {encoder.name} accounted for {len(accounted)} items where it was given {len(samples)}; every one "
            "must be embedded or quarantined, once: mend the encoder."
        )
    return embeddings


def _concatenate_embeddings(pieces: Sequence[Embeddings]) -> Embeddings:
    return Embeddings(
        tuple(id for piece in pieces for id in piece.ids),
        np.concatenate([piece.vectors for piece in pieces if piece.ids] or [np.zeros((0, 0), np.float32)]),
        np.concatenate([piece.frames for piece in pieces]),
        tuple(item for piece in pieces for item in piece.quarantined),
    )


def shard_progress(
    shard_set: EmbeddingShards, numbers: Sequence[int], progress: ProgressCallback | None
) -> Callable[[int], None]:
    """Counts the items of the shards of this call as they get done."""
    sizes = {number: shard_set.item_slice(number).stop - shard_set.item_slice(number).start for number in numbers}
    progress_meter, finished_items = start_progress(sum(sizes.values()), progress), 0

    def on_done(number: int) -> None:
        nonlocal finished_items
        finished_items += sizes[number]
        progress_meter.update(finished_items)

    return on_done


def finish_job(job: EmbeddingJob, computed: int, shard: str | None) -> EmbeddingResult:
    """What a call returns after its shards are done."""
    if shard is not None:
        return EmbeddingResult(job.shard_set.draft_folder, False, job.shard_set.shard_count, computed)
    job.finish()
    return finished_result(job, computed)


def finished_result(job: EmbeddingJob, computed: int) -> EmbeddingResult:
    """What a call returns of a finished folder; `made`: the shards that this call made."""
    return EmbeddingResult(
        job.shard_set.folder, True, job.shard_set.shard_count, computed, job.shard_set.quarantined_count()
    )


def samples_digest(samples: Sequence[Sample]) -> str:
    """SHA-256 over what encoders see of the samples, in order."""
    hasher = hashlib.sha256()
    for sample in samples:
        audio = hashlib.sha256(sample.audio).hexdigest() if isinstance(sample.audio, bytes) else sample.audio
        for value in (sample.id, audio, sample.text, sample.pcm_hash):
            hasher.update(_length_prefixed(value))
    return hasher.hexdigest()


def _length_prefixed(value: str | None) -> bytes:
    """No two lists of values are one text: each says its length; None has none."""
    encoded = b"" if value is None else value.encode("utf-8", "surrogateescape")
    return (b"-:" if value is None else f"{len(encoded)}:".encode()) + encoded


def _read_items(samples: Sequence[Sample] | str | Path) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    if not isinstance(samples, str | Path):
        return tuple(samples), ()
    from undersong.corpora import open_corpus

    manifest = open_corpus(str(samples))
    return manifest.samples, manifest.quarantined
