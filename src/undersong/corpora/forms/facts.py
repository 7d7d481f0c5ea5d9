"""Facts of decoded items as rows of a table, and back.  Knows columns; decodes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.corpora.audio_fingerprint import BANDS, TIME_SPANS
from undersong.corpora.audio_metadata import AudioMetadata, decode_metadata
from undersong.types import Sample

if TYPE_CHECKING:
    import pyarrow as pa

FINGERPRINTS_FILE = "prints.parquet"
FINGERPRINT_SIZE = BANDS * TIME_SPANS

Fingerprints = Mapping[str, tuple[np.ndarray, float]]  # id -> `alike.fingerprint`


def audio_metadata_table(metadata: Sequence[AudioMetadata]) -> pa.Table:
    """One row an item: id, reason, seconds, pcm_hash, print `fixed_size_list<halffloat>[512]`, sounding.

    A fingerprint is compared by cosines of two digits, so half precision keeps all of it that is used.
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
    """A table of the facts of samples, which are decoded for it."""
    return audio_metadata_table(list(decode_metadata(samples)))


def audio_metadata_from_table(table: pa.Table) -> list[AudioMetadata]:
    """Facts without fingerprints, which stay in the table."""
    rows = table.select(["id", "reason", "seconds", "pcm_hash"]).to_pylist()
    return [AudioMetadata(**row) for row in rows]


def write_fingerprints(table: pa.Table, folder: Path) -> None:
    """`prints.parquet`: id, print and sounding of the items that have a fingerprint."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with_fingerprint = table.filter(pc.is_valid(table.column("print"))).select(["id", "print", "sounding"])
    pq.write_table(with_fingerprint, folder / FINGERPRINTS_FILE, compression="zstd")


def read_fingerprints(folder: Path) -> Fingerprints:
    """Id -> (vector (512,) float32, seconds that sound); none where the corpus was not listened to."""
    import pyarrow.parquet as pq

    if not (folder / FINGERPRINTS_FILE).is_file():
        return {}
    table = pq.read_table(folder / FINGERPRINTS_FILE)
    flat = table.column("print").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, FINGERPRINT_SIZE).astype(np.float32)
    ids, seconds = table.column("id").to_pylist(), table.column("sounding").to_pylist()
    return dict(zip(ids, zip(vectors, seconds)))
