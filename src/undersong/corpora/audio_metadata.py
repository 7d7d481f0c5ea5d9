"""Metadata of decoded audio (duration, PCM hash, fingerprint, reason for quarantine) and its Parquet tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.corpora.audio_fingerprint import BANDS, TIME_SPANS, fingerprint_clip
from undersong.corpora.decode import THREADS, UnreadableAudioError, inaudible_reason, load_clip, pcm_hash, threaded_map
from undersong.store.parquet import read_parquet, write_parquet
from undersong.types import Quarantined, Sample

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


SAMPLE_RATE = 16_000


@dataclass(frozen=True, slots=True)
class AudioMetadata:
    """Metadata of one item.

    `reason` says why the item cannot be used, or is None. `fingerprint` is the result of `fingerprint_clip`.
    """

    id: str
    reason: str | None = None
    seconds: float | None = None
    pcm_hash: str | None = None
    fingerprint: tuple[np.ndarray, float] | None = None


def decode_sample_metadata(sample: Sample) -> AudioMetadata:
    """Decode one sample and collect its metadata. Text samples are not decoded.

    Silence is not usable: a model may give it a vector and a reply that say nothing about the item.
    """
    if sample.audio is None:
        return AudioMetadata(sample.id, None if (sample.text or "").strip() else "there is neither audio nor text")
    try:
        clip = load_clip(sample, SAMPLE_RATE)
    except UnreadableAudioError as error:
        return AudioMetadata(sample.id, error.reason)
    if reason := inaudible_reason(clip):
        return AudioMetadata(sample.id, reason)
    return AudioMetadata(sample.id, None, clip.samples.size / SAMPLE_RATE, pcm_hash(clip), fingerprint_clip(clip))


def decode_metadata(
    samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> Iterator[AudioMetadata]:
    """Yield the metadata of each sample, in order, decoded in threads. `on_progress` gets the number so far."""
    for number, metadata in enumerate(threaded_map(decode_sample_metadata, samples, lambda: 2 * THREADS), start=1):
        if on_progress is not None:
            on_progress(number)
        yield metadata


def apply_audio_metadata(
    samples: Sequence[Sample], metadata: Sequence[AudioMetadata]
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Split samples into usable ones, with `seconds` and `pcm_hash` filled in, and quarantined ones.

    Decoded values replace `seconds` and `pcm_hash` of the manifest. Raises ValueError if the metadata are not of these
    samples in this order; they may come from the shards of another run.
    """
    if [entry.id for entry in metadata] != [sample.id for sample in samples]:
        raise ValueError("the metadata do not belong to these samples, in this order")
    usable = tuple(
        sample if sample.audio is None else replace(sample, seconds=entry.seconds, pcm_hash=entry.pcm_hash)
        for sample, entry in zip(samples, metadata)
        if entry.reason is None
    )
    return usable, tuple(Quarantined(entry.id, entry.reason) for entry in metadata if entry.reason is not None)


def examine(
    samples: Sequence[Sample], on_progress: Callable[[int], None] | None = None
) -> tuple[tuple[Sample, ...], tuple[Quarantined, ...]]:
    """Decode every audio sample once; return (usable samples, quarantined samples)."""
    return apply_audio_metadata(samples, list(decode_metadata(samples, on_progress)))


FINGERPRINTS_FILE = "prints.parquet"
FINGERPRINT_SIZE = BANDS * TIME_SPANS

Fingerprints = Mapping[str, tuple[np.ndarray, float]]  # id -> result of `fingerprint_clip`


def audio_metadata_table(metadata: Sequence[AudioMetadata]) -> pa.Table:
    """Table with one row per item: id, reason, seconds, pcm_hash, print `fixed_size_list<halffloat>[512]`, sounding.

    `print` and `sounding` are the fingerprint. Its cosines are compared to two digits, so half precision is enough.
    """
    import pyarrow as pa

    fingerprints = [
        None if entry.fingerprint is None else entry.fingerprint[0].astype(np.float16) for entry in metadata
    ]
    flat = np.concatenate(
        [np.zeros(FINGERPRINT_SIZE, np.float16) if fingerprint is None else fingerprint for fingerprint in fingerprints]
        or [np.zeros(0, "f2")]
    )
    mask = pa.array([fingerprint is None for fingerprint in fingerprints], pa.bool_())
    columns = {
        "id": pa.array([entry.id for entry in metadata], pa.string()),
        "reason": pa.array([entry.reason for entry in metadata], pa.string()),
        "seconds": pa.array([entry.seconds for entry in metadata], pa.float64()),
        "pcm_hash": pa.array([entry.pcm_hash for entry in metadata], pa.string()),
        "print": pa.FixedSizeListArray.from_arrays(pa.array(flat), FINGERPRINT_SIZE, mask=mask),
        "sounding": pa.array(
            [None if entry.fingerprint is None else entry.fingerprint[1] for entry in metadata], pa.float64()
        ),
    }
    return pa.table(columns)


def decode_metadata_table(samples: Sequence[Sample]) -> pa.Table:
    """Decode samples and return the table of their metadata."""
    return audio_metadata_table(list(decode_metadata(samples)))


def audio_metadata_from_table(table: pa.Table) -> list[AudioMetadata]:
    """Read metadata from a table, without the fingerprints."""
    rows = table.select(["id", "reason", "seconds", "pcm_hash"]).to_pylist()
    return [AudioMetadata(**row) for row in rows]


def write_fingerprints(table: pa.Table, folder: Path) -> None:
    """Write `prints.parquet`: id, print and sounding of the items that have a fingerprint."""
    import pyarrow.compute as pc

    with_fingerprint = table.filter(pc.is_valid(table.column("print"))).select(["id", "print", "sounding"])
    write_parquet(with_fingerprint, folder / FINGERPRINTS_FILE, compression="zstd")


def read_fingerprints(folder: Path) -> Fingerprints:
    """Map each id to its fingerprint (vector (512,) float32, seconds). Empty if the corpus was never decoded."""
    if not (folder / FINGERPRINTS_FILE).is_file():
        return {}
    table = read_parquet(folder / FINGERPRINTS_FILE)
    flat = table.column("print").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, FINGERPRINT_SIZE).astype(np.float32)
    ids, seconds = table.column("id").to_pylist(), table.column("sounding").to_pylist()
    return dict(zip(ids, zip(vectors, seconds)))
