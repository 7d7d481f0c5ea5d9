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

SUMMARY_FILE = "work.json"  # in a finished folder: what it answers, and the hash of each of its files
SAMPLES_FOLDER = "samples"  # in the draft: the items of each shard, for workers that do not have them


@dataclass(frozen=True, slots=True)
class EmbeddingShards:
    """`items` items in shards of `rows`, for the question whose SHA-256 is `key`; to become `folder`."""

    folder: Path
    key: str
    items: int
    rows: int

    @property
    def shard_count(self) -> int:
        """How many there are; the last may be smaller."""
        return -(-self.items // self.rows)

    @property
    def draft_folder(self) -> Path:
        """Where shards lie until all are there; the key in its name keeps other questions out."""
        return self.folder.with_name(f"{self.folder.name}.{self.key[:12]}.partial")

    def item_slice(self, number: int) -> slice:
        """Which items are in a shard."""
        return slice(number * self.rows, min(self.items, (number + 1) * self.rows))

    def shard_file(self, number: int) -> Path:
        """A shard's vectors (`vectors_table`)."""
        return self.draft_folder / f"embeddings-{number:05d}.parquet"

    def marker(self, number: int) -> Path:
        """What vouches for a shard, as JSON: its rows, its SHA-256, and what was left out."""
        return self.draft_folder / f"embeddings-{number:05d}.done"

    def samples(self, number: int) -> Path:
        """A shard's items as a manifest, for a worker that is told no more than the number."""
        return self.draft_folder / SAMPLES_FOLDER / f"samples-{number:05d}.parquet"

    def is_finished(self) -> bool:
        """Whether `folder` holds the whole answer.  Raises UndersongError where it holds anything else."""
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
        """A shard, then its marker: with a marker the shard is whole and on disk, and all of it is accounted for."""
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
        """The draft becomes `folder`: the shards, one `quarantine.parquet` (`left_out` first), and `work.json`.

        Raises UndersongError for a shard that is missing or is not what its marker says (its marker goes, so that the
        next run makes it again), and where all vectors are equal.  A second finisher finds the work done.
        """
        import pyarrow.parquet as pq

        if self.is_finished():
            return
        if missing := self.missing_shards():
            raise UndersongError(
                f"{len(missing)} of {self.shard_count} shards are missing in {self.draft_folder}, the first {missing[0]}; run "
                "again without --shard to make them."
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
        for number in range(self.shard_count):  # only now: before, a kill would have lost what they vouch for
            (self.folder / self.marker(number).name).unlink(missing_ok=True)

    def quarantined_count(self) -> int:
        """How many items of a finished folder were left out."""
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
            raise UndersongError(f"{self.shard_file(number)} is not what was written; run again, which makes it anew.")
        return marker_content

    def _check_vectors_differ(self) -> None:
        """The encoder's own check saw one shard at a time; a few equal items in one are no fault, all in all are."""
        first, compared = None, 0
        for vector in self._vectors():
            if first is None:
                first, tolerance = vector, EQUALITY_TOLERANCE * float(abs(vector).max())
            elif vector.shape != first.shape:
                raise UndersongError(
                    f"{self.draft_folder} holds vectors of {len(first)} and {len(vector)} dimensions; delete it and embed "
                    "again."
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
