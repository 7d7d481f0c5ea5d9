"""Vectors of a corpus in resumable shards: computing them, joining them to embeddings, and `embed_shards` for both."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from undersong.encoders.batching import ProgressCallback
from undersong.encoders.embedding_checks import all_rows_equal
from undersong.encoders.embeddings import QUARANTINE_FILE, check_unique, quarantine_table, table_vectors
from undersong.encoders.registry import ENCODERS_THAT_FIT, make_encoder
from undersong.encoders.sparse_vectors import is_sparse, sparse_column, stack_rows, with_width
from undersong.encoders.spec import parse_encoder
from undersong.scale.row_shards import RowFunction, RowShards, ShardScheduler, fill_row_shards, parse_shard
from undersong.store.atomic import atomic_replacement, remove_path, sweep_removed
from undersong.store.parquet import write_parquet
from undersong.types import Embeddings, Encoder, Quarantined, Sample, UndersongError, Vectors

if TYPE_CHECKING:
    import pyarrow as pa

SHARD_ROWS = 4096  # items a shard: what a kill may cost
MAX_DUPLICATES = (
    32  # items that may well have one and the same vector (copies of a clip) without the encoder being at fault
)
VERSION = 3  # of what a shard holds
JOB_FILE = "job.json"  # in a finished folder: which embeddings it holds


@dataclass(frozen=True, slots=True)
class EmbeddingResult:
    """Result of one call: the folder, and the numbers of shards and of quarantined items.

    `folder` holds the embeddings if `complete`, else the shards so far. This call made `computed` of `shard_count`
    shards. `quarantined` is None until the embeddings are complete.
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
    scheduler: ShardScheduler | None = None,
    progress: ProgressCallback | None = None,
) -> EmbeddingResult:
    """Embed samples into a new folder, in shards: a killed call loses one, and several jobs can share the work.

    Repeating the call is a look-up. Audio files are identified by path and `pcm_hash`. A file that changes under the
    same name without a hash is not noticed.

    Args:
        samples: Items, or the path of their manifest.
        encoder: Encoder specification.
        folder: Gets `embeddings-*.parquet` (one per shard), `quarantine.parquet` and `job.json` when all is done.
        shard: `"i/n"`, i from 1: make every n-th shard. A last call without `shard` then completes the folder.
        rows: Items per shard.
        fit: Items that text encoders are fitted on (default: `samples`; give the pool and the harm set together).
        device: Torch device of the encoder.
        make: Factory of the encoder, if `make_encoder` cannot make it.
        version: Hash of what the vectors depend on besides the specification, such as the weights.
        scheduler: Computes shards elsewhere (`ray_scheduler`); then `make` must pickle.
        progress: Called with the number of finished items.

    Raises:
        UndersongError: The encoder is unknown or gives all items one vector, items cannot be distinguished, the folder
            holds something else, or a shard is damaged.
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
    key_parts = (encoder, version, device, rows, len(items), samples_digest(items), samples_digest(fit_samples))
    key, folder = _job_key(key_parts, left_out), Path(folder)
    make = make or partial(make_encoder, encoder, fit=fit_samples, device=device)
    make = FittedOnce(make) if needs_fit else make
    # The key in the draft's name keeps the shards of other calls out.
    shards = RowShards(folder.with_name(f"{folder.name}.{key[:12]}.partial"), items, rows)
    parse_shard(shard)
    computed = 0
    if not _holds_job(folder, key):
        computed = fill_row_shards(
            shards, partial(vector_pass, make), shard=shard, scheduler=scheduler, progress=progress
        )
        if shard is not None:
            return EmbeddingResult(shards.folder, False, shards.shard_count, computed)
        facts = {"encoder": encoder, "key": key, "items": len(items)}
        _publish(shards, folder, left_out, facts)
    with suppress(OSError):  # the embeddings are there
        sweep_removed(folder.parent, rf"{re.escape(folder.name)}\.[0-9a-f]{{12}}\.partial")
        remove_path(shards.folder)
    return EmbeddingResult(folder, True, shards.shard_count, computed, _quarantined_count(folder))


class FittedOnce:
    """Factory that makes an encoder once and keeps it.

    The encoder is made before pickling, so the texts that it is fitted on are not sent to workers.
    """

    def __init__(self, make: Callable[[], Encoder]) -> None:
        self._make, self._encoder = make, cast("Encoder | None", None)

    def __call__(self) -> Encoder:
        """Give the encoder."""
        if self._encoder is None:
            self._encoder = self._make()
        return self._encoder

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (_unchanged, self())


def _unchanged(encoder: Encoder) -> Encoder:
    return encoder


def vector_pass(make: Callable[[], Encoder]) -> RowFunction:
    """A pass that embeds samples by an encoder, which is made for it."""
    return partial(vector_rows, make())


def vector_rows(encoder: Encoder, samples: Sequence[Sample]) -> pa.Table:
    """One row a sample, in order: id, embedding, frames, reason (why there is no embedding, else null)."""
    import pyarrow as pa

    embeddings = embed_samples(encoder, samples)
    row_by_id = {sample.id: row for row, sample in enumerate(samples)}
    rows = np.array([row_by_id[id] for id in embeddings.ids], np.int64)
    frames = np.zeros(len(samples), np.int64)
    frames[rows] = embeddings.frames
    reasons = {item.id: item.reason for item in embeddings.quarantined}
    columns = {
        "id": pa.array(list(row_by_id), pa.string()),
        "embedding": _embedding_column(embeddings.vectors, rows, len(samples)),
        "frames": pa.array(frames),
        "reason": pa.array([reasons.get(id) for id in row_by_id], pa.string()),
    }
    table = pa.table(columns)
    return with_width(table, embeddings.vectors.shape[1]) if is_sparse(embeddings.vectors) else table


def _embedding_column(vectors: Vectors, rows: np.ndarray, count: int) -> pa.Array:
    """Column of `count` items: `vectors` at the positions `rows`, null elsewhere."""
    import pyarrow as pa

    if is_sparse(vectors):
        return sparse_column(vectors, rows, count)
    width = vectors.shape[1] if len(rows) else 1  # without vectors there is no width
    all_vectors, is_missing = np.zeros((count, width), np.float32), np.ones(count, bool)
    if len(rows):
        all_vectors[rows], is_missing[rows] = vectors, False
    return pa.FixedSizeListArray.from_arrays(pa.array(all_vectors.reshape(-1)), width, mask=pa.array(is_missing))


def embed_samples(encoder: Encoder, samples: Sequence[Sample]) -> Embeddings:
    """Embed the samples of one shard; every item gets a vector or is quarantined.

    An encoder rejects items that all get one vector. A few items of a shard may be copies of one clip, so they are then
    embedded one by one. At the end, all vectors of the corpus are checked for being equal.
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
            "must be embedded or quarantined, once: fix the encoder."
        )
    return embeddings


def _concatenate_embeddings(pieces: Sequence[Embeddings]) -> Embeddings:
    return Embeddings(
        tuple(id for piece in pieces for id in piece.ids),
        stack_rows([piece.vectors for piece in pieces if piece.ids] or [np.zeros((0, 0), np.float32)]),
        np.concatenate([piece.frames for piece in pieces]),
        tuple(item for piece in pieces for item in piece.quarantined),
    )


def write_sharded_embeddings(shards: RowShards, folder: Path, left_out: Sequence[Quarantined] = ()) -> None:
    """Write shards of vectors as embeddings: a file a shard, and one `quarantine.parquet` (`left_out` first).

    Holds one shard at a time.

    Raises:
        UndersongError: A shard is missing or damaged, vectors have several widths, or all vectors are equal (the
            encoder's own check saw one shard at a time; a few equal items in one are no fault, all in all are).
    """
    import pyarrow.compute as pc

    folder.mkdir(parents=True, exist_ok=True)
    quarantined = list(left_out)
    first: Vectors = np.zeros((1, 0))
    count, all_equal = 0, True
    for number, table in enumerate(shards.tables()):
        has_vector = pc.is_valid(table.column("embedding"))
        lost = table.filter(pc.invert(has_vector))
        quarantined += map(Quarantined, lost.column("id").to_pylist(), lost.column("reason").to_pylist())
        table = table.filter(has_vector).select(["id", "embedding", "frames"])
        write_parquet(table, folder / f"embeddings-{number:05d}.parquet")
        if not len(table):
            continue
        vectors = table_vectors(shards.folder, table)
        first = first if count else vectors[:1]
        if vectors.shape[1] != first.shape[1]:
            raise UndersongError(
                f"{shards.folder} holds vectors of {first.shape[1]} and {vectors.shape[1]} dimensions; delete it and "
                "embed again."
            )
        all_equal = all_equal and all_rows_equal(stack_rows([first, vectors]))
        count += len(table)
    if count > 1 and all_equal:
        raise UndersongError(
            f"The encoder gave the same vector to all {count} items, so no distance means anything; check its weights "
            f"and the audio files, then delete {shards.folder}."
        )
    write_parquet(quarantine_table(tuple(quarantined)), folder / QUARANTINE_FILE)


def samples_digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of what encoders read of the samples, in order; audio files count by path, and by `pcm_hash` if known."""
    hasher = hashlib.sha256()
    for sample in samples:
        audio = hashlib.sha256(sample.audio).hexdigest() if isinstance(sample.audio, bytes) else sample.audio
        for value in (sample.id, audio, sample.text, sample.pcm_hash):
            hasher.update(_length_prefixed(value))
    return hasher.hexdigest()


def _job_key(parts: Sequence[object], left_out: Sequence[Quarantined]) -> str:
    hasher = hashlib.sha256()
    for value in (VERSION, *parts):
        hasher.update(f"{value}\n".encode())
    for item in left_out:
        hasher.update(_length_prefixed(item.id) + _length_prefixed(item.reason))
    return hasher.hexdigest()


def _length_prefixed(value: str | None) -> bytes:
    """Encode a value with its length (None has none), so that no two lists of values give the same text."""
    encoded = b"" if value is None else value.encode("utf-8", "surrogateescape")
    return (b"-:" if value is None else f"{len(encoded)}:".encode()) + encoded


def _holds_job(folder: Path, key: str) -> bool:
    """Return True if `folder` holds the embeddings of this key. Raises UndersongError if it holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        stored_key = json.loads((folder / JOB_FILE).read_bytes())["key"]
    except (OSError, ValueError, KeyError, TypeError):
        stored_key = None
    if stored_key != key:
        raise UndersongError(
            f"{folder} exists and holds something else than these items by this encoder; name a new folder."
        )
    return True


def _publish(shards: RowShards, folder: Path, left_out: Sequence[Quarantined], facts: dict[str, Any]) -> None:
    """Write the embeddings inside the draft; one rename makes them `folder`."""
    ready = shards.folder / "embeddings"
    with atomic_replacement(ready) as temporary:
        write_sharded_embeddings(shards, temporary, left_out)
        (temporary / JOB_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    ready.replace(folder)


def _quarantined_count(folder: Path) -> int:
    import pyarrow.parquet as pq

    return int(pq.read_metadata(folder / QUARANTINE_FILE).num_rows)


def _read_items(samples: Sequence[Sample] | str | Path) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    if not isinstance(samples, str | Path):
        return tuple(samples), ()
    from undersong.corpora.registry import open_corpus

    manifest = open_corpus(str(samples))
    return manifest.samples, manifest.quarantined
