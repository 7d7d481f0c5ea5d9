"""Embedding of a corpus in resumable shards, in one process or split over jobs with `--shard i/n`."""

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

SHARD_ROWS = 4096  # items per shard; a kill loses at most one
MAX_DUPLICATES = 32  # largest shard in which all items may have the same vector, as copies of one clip
VERSION = 1  # of the content of a shard


@dataclass(frozen=True, slots=True)
class EmbeddingJob:
    """An embedding task: the samples, those `left_out` before, the function that makes the encoder, and the shards."""

    encoder: str
    make: Callable[[], Encoder]
    samples: tuple[Sample, ...]
    left_out: tuple[Quarantined, ...]
    shard_set: EmbeddingShards

    def finish(self) -> None:
        """Run `EmbeddingShards.finish` with the samples that were left out before encoding."""
        self.shard_set.finish({"encoder": self.encoder}, self.left_out)


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """Result of one call, which computed `computed` of `shard_count` shards.

    `folder` holds the embeddings if `complete`, else the finished shards. `quarantined` is known if `complete`.
    """

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
    """Embed samples into a new folder: `embeddings-00000.parquet` and so on, `quarantine.parquet` and `work.json`.

    Without `shard`, it computes all missing shards, checks them, and gives the folder its name; a repeated call is a
    look-up. Audio files are identified by path and `pcm_hash`: a changed file without a hash is not noticed.

    Args:
        samples: Samples, or the reference of a corpus.
        encoder: Specification of the encoder.
        folder: The new folder.
        shard: `"i/n"`, i from 1: compute every n-th shard and leave the rest to other jobs, and the folder's name to a
            last call without `shard`.
        rows: Items per shard.
        fit: Samples that text encoders are fitted on (default: `samples`; pass pool and harm set together).
        device: Torch device.
        make: Makes the encoder, if it needs more than `make_encoder` takes.
        version: What else the vectors depend on, such as the hash of the weights.
        progress: Progress callback.

    Raises:
        UndersongError: Unknown encoder, repeated ids, a folder with other content, damaged shards, or an encoder that
            gives all items the same vector.
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
    """Prepare the job of `embed_shards` without computing anything.

    Args:
        samples: As in `embed_shards`.
        encoder: As in `embed_shards`.
        folder: As in `embed_shards`.
        rows: As in `embed_shards`.
        fit: As in `embed_shards`.
        device: As in `embed_shards`.
        make: As in `embed_shards`.
        version: As in `embed_shards`.
    """
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
    """Parse `"i/n"` to a predicate: is a shard number assigned to this job? None assigns all shards.

    Raises UndersongError for any other text.
    """
    if shard is None:
        return lambda _number: True
    match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", shard)
    i, n = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= i <= n:
        raise UndersongError(
            f"Shard {shard!r} is no i/n with i from 1 to n; write 1/{n or 8} for the first of {n or 8}."
        )
    # Every n-th, not a stretch: corpora are often sorted by length, and the jobs should end together.
    return lambda number: number % n == i - 1


def embed_assigned_shards(
    shard_set: EmbeddingShards,
    encoder: Encoder,
    shards: Iterable[tuple[int, Sequence[Sample]]],
    on_done: Callable[[int], None],
) -> None:
    """Embed and write numbered shards.

    Args:
        shard_set: The shards on disk.
        encoder: The encoder.
        shards: (number, samples) of each shard.
        on_done: Called with the number of each shard when it is safely written.
    """
    for number, samples in shards:
        shard_set.write_shard(number, embed_samples(encoder, samples))
        on_done(number)


def embed_samples(encoder: Encoder, samples: Sequence[Sample]) -> Embeddings:
    """Embed one shard, and check that every item is accounted for.

    An encoder rejects items that all get the same vector. A few items in a shard may be copies of one clip, so these
    are embedded one by one. Equality of all vectors is checked for the whole corpus at the end.
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
            "must be embedded or quarantined, once; fix the encoder."
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
    """Callback that counts the items of this call's finished shards."""
    sizes = {number: shard_set.item_slice(number).stop - shard_set.item_slice(number).start for number in numbers}
    progress_meter, finished_items = start_progress(sum(sizes.values()), progress), 0

    def on_done(number: int) -> None:
        nonlocal finished_items
        finished_items += sizes[number]
        progress_meter.update(finished_items)

    return on_done


def finish_job(job: EmbeddingJob, computed: int, shard: str | None) -> EmbeddingResult:
    """Result of a call after its shards are computed."""
    if shard is not None:
        return EmbeddingResult(job.shard_set.draft_folder, False, job.shard_set.shard_count, computed)
    job.finish()
    return finished_result(job, computed)


def finished_result(job: EmbeddingJob, computed: int) -> EmbeddingResult:
    """Result of a call for a finished folder; `computed` is the number of shards that this call computed."""
    return EmbeddingResult(
        job.shard_set.folder, True, job.shard_set.shard_count, computed, job.shard_set.quarantined_count()
    )


def samples_digest(samples: Sequence[Sample]) -> str:
    """SHA-256 over everything that encoders use of the samples, in order."""
    hasher = hashlib.sha256()
    for sample in samples:
        audio = hashlib.sha256(sample.audio).hexdigest() if isinstance(sample.audio, bytes) else sample.audio
        for value in (sample.id, audio, sample.text, sample.pcm_hash):
            hasher.update(_length_prefixed(value))
    return hasher.hexdigest()


def _length_prefixed(value: str | None) -> bytes:
    """Encode a value with its length, so that different lists of values give different texts; None has no length."""
    encoded = b"" if value is None else value.encode("utf-8", "surrogateescape")
    return (b"-:" if value is None else f"{len(encoded)}:".encode()) + encoded


def _read_items(samples: Sequence[Sample] | str | Path) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    if not isinstance(samples, str | Path):
        return tuple(samples), ()
    from undersong.corpora import open_corpus

    manifest = open_corpus(str(samples))
    return manifest.samples, manifest.quarantined
