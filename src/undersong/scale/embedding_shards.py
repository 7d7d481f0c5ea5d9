"""Shards of one embedding job on disk: paths, completion markers, and how they become the final folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.encoders.embeddings import (
    EQUALITY_TOLERANCE,
    QUARANTINE_FILE,
    embeddings_table,
    quarantine_table,
    row_groups,
    stream_embeddings,
)
from undersong.store import TEMPORARY_PREFIX, atomic_replacement, hash_file, write_atomic
from undersong.types import Embeddings, Quarantined, UndersongError

SUMMARY_FILE = "work.json"  # in a finished folder: the key of the job, and the hash of each file
SAMPLES_FOLDER = "samples"  # in the draft: the items of each shard, for workers that do not hold them


@dataclass(frozen=True, slots=True)
class EmbeddingShards:
    """Shards of `rows` items for a total of `items`, on their way to `folder`; `key` is the hash of the job."""

    folder: Path
    key: str
    items: int
    rows: int

    @property
    def shard_count(self) -> int:
        """Number of shards; the last may be smaller."""
        return -(-self.items // self.rows)

    @property
    def draft_folder(self) -> Path:
        """Folder of the shards until all are complete; the key in its name separates different jobs."""
        return self.folder.with_name(f"{self.folder.name}.{self.key[:12]}.partial")

    def item_slice(self, number: int) -> slice:
        """Slice of the items in a shard."""
        return slice(number * self.rows, min(self.items, (number + 1) * self.rows))

    def shard_file(self, number: int) -> Path:
        """File with a shard's vectors (`embeddings_table`)."""
        return self.draft_folder / f"embeddings-{number:05d}.parquet"

    def marker(self, number: int) -> Path:
        """Marker of a finished shard, as JSON: its rows, its SHA-256, and the quarantined items."""
        return self.draft_folder / f"embeddings-{number:05d}.done"

    def samples(self, number: int) -> Path:
        """Manifest with a shard's items, for a worker that only gets the number."""
        return self.draft_folder / SAMPLES_FOLDER / f"samples-{number:05d}.parquet"

    def is_finished(self) -> bool:
        """True if `folder` holds the complete result. Raises UndersongError if it holds anything else."""
        if not self.folder.exists():
            return False
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return False
        try:
            stored_key = json.loads((self.folder / SUMMARY_FILE).read_bytes())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            stored_key = None
        if stored_key != self.key:
            raise UndersongError(
                f"{self.folder} exists and holds something else than these items by this encoder; name a new folder."
            )
        return True

    def missing_shards(self) -> list[int]:
        """Numbers of the shards without a marker, in order."""
        done = {path.name for path in self.draft_folder.glob("embeddings-*.done")}
        return [number for number in range(self.shard_count) if self.marker(number).name not in done]

    def write_shard(self, number: int, embeddings: Embeddings) -> None:
        """Write a shard, then its marker: a shard with a marker is complete and on disk."""
        import pyarrow.parquet as pq

        with atomic_replacement(self.shard_file(number)) as temporary:
            pq.write_table(embeddings_table(embeddings.ids, embeddings.vectors, embeddings.frames), temporary)
        left_out = [[item.id, item.reason] for item in embeddings.quarantined]
        marker_content = {
            "rows": len(embeddings.ids),
            "sha256": hash_file(self.shard_file(number)),
            "quarantined": left_out,
        }
        write_atomic(self.marker(number), json.dumps(marker_content, ensure_ascii=False).encode())

    def finish(self, facts: dict[str, Any], left_out: Sequence[Quarantined] = ()) -> None:
        """Turn the draft into `folder`: the shards, one `quarantine.parquet` (`left_out` first), and `work.json`.

        Raises UndersongError for a missing shard, for one that differs from its marker (which is removed, so that the
        next run computes it again), and if all vectors are equal. A second call does nothing.
        """
        import pyarrow.parquet as pq

        if self.is_finished():
            return
        if missing := self.missing_shards():
            raise UndersongError(
                f"{len(missing)} of {self.shard_count} shards are missing in {self.draft_folder}, the first "
                f"{missing[0]}; run again without --shard to make them."
            )
        marker_contents = [self._read_verified_marker(number) for number in range(self.shard_count)]
        self._check_vectors_differ()
        encoder_quarantine = [
            Quarantined(*item) for marker_content in marker_contents for item in marker_content["quarantined"]
        ]
        with atomic_replacement(self.draft_folder / QUARANTINE_FILE) as temporary:
            pq.write_table(quarantine_table((*left_out, *encoder_quarantine)), temporary)
        hashes = [marker_content["sha256"] for marker_content in marker_contents]
        summary = {**facts, "key": self.key, "items": self.items, "rows": self.rows, "shards": hashes}
        write_atomic(self.draft_folder / SUMMARY_FILE, (json.dumps(summary, indent=1) + "\n").encode())
        shutil.rmtree(self.draft_folder / SAMPLES_FOLDER, ignore_errors=True)
        for stray in self.draft_folder.glob(f"{TEMPORARY_PREFIX}*"):  # of killed runs
            stray.unlink(missing_ok=True)
        self.draft_folder.replace(self.folder)
        for number in range(self.shard_count):  # last, because a kill before the rename still needs the markers
            (self.folder / self.marker(number).name).unlink(missing_ok=True)

    def quarantined_count(self) -> int:
        """Number of quarantined items of a finished folder."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.folder / QUARANTINE_FILE).num_rows)

    def _read_verified_marker(self, number: int) -> dict[str, Any]:
        marker = self.marker(number)
        try:
            marker_content: dict[str, Any] = json.loads(marker.read_bytes())
            is_intact = hash_file(self.shard_file(number)) == marker_content["sha256"]
        except (ValueError, KeyError, TypeError, UndersongError):
            is_intact = False
        if not is_intact:
            marker.unlink(missing_ok=True)
            raise UndersongError(f"{self.shard_file(number)} is not what was written; run again to make it again.")
        return marker_content

    def _check_vectors_differ(self) -> None:
        """Check that not all vectors are equal; the encoder's own check covers only one shard at a time."""
        first, compared = None, 0
        for vector in self._vectors():
            if first is None:
                first, tolerance = vector, EQUALITY_TOLERANCE * float(abs(vector).max())
            elif vector.shape != first.shape:
                raise UndersongError(
                    f"{self.draft_folder} holds vectors of {len(first)} and {len(vector)} dimensions; delete it and "
                    "embed again."
                )
            elif abs(vector - first).max() > tolerance:
                return
            compared += 1
        if compared > 1:
            raise UndersongError(
                f"The encoder gave the same vector to all {compared} items, so no distance means anything; check its "
                f"weights and the audio files, then delete {self.draft_folder}."
            )

    def _vectors(self) -> Iterator[Any]:
        for number in range(self.shard_count):
            for group in range(row_groups(self.shard_file(number))):
                for chunk in stream_embeddings(self.shard_file(number), group, 1024):
                    yield from chunk.vectors
