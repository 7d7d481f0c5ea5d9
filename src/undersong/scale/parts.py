"""The shards of one embedding job on disk: which there are, which are done, and how they become one folder.

While shards are missing they lie in `NAME.KEY.partial` beside the folder to be, so nobody reads half a corpus, and jobs
that ask another question cannot meet there.  Knows files and markers; does not know encoders or who computes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.encoders.checks import SAME_VECTOR
from undersong.encoders.vectors import QUARANTINE, quarantine_table, row_groups, stream_embeddings, vectors_table
from undersong.store import WRITING, hash_file, replacing, write_atomic
from undersong.types import Embeddings, Quarantined, UndersongError

WORK = "work.json"  # in a finished folder: what it answers, and the hash of each of its files
SAMPLES = "samples"  # in the draft: the items of each shard, for workers that do not have them


@dataclass(frozen=True, slots=True)
class Parts:
    """`items` items in shards of `rows`, for the question whose SHA-256 is `key`; to become `folder`."""

    folder: Path
    key: str
    items: int
    rows: int

    @property
    def shards(self) -> int:
        """How many there are; the last may be smaller."""
        return -(-self.items // self.rows)

    @property
    def draft(self) -> Path:
        """Where shards lie until all are there; the key in its name keeps other questions out."""
        return self.folder.with_name(f"{self.folder.name}.{self.key[:12]}.partial")

    def span(self, number: int) -> slice:
        """Which items are in a shard."""
        return slice(number * self.rows, min(self.items, (number + 1) * self.rows))

    def file(self, number: int) -> Path:
        """A shard's vectors (`vectors_table`)."""
        return self.draft / f"embeddings-{number:05d}.parquet"

    def marker(self, number: int) -> Path:
        """What vouches for a shard, as JSON: its rows, its SHA-256, and what was left out."""
        return self.draft / f"embeddings-{number:05d}.done"

    def samples(self, number: int) -> Path:
        """A shard's items as a manifest, for a worker that is told no more than the number."""
        return self.draft / SAMPLES / f"samples-{number:05d}.parquet"

    def finished(self) -> bool:
        """Whether `folder` holds the whole answer.  Raises UndersongError where it holds anything else."""
        if not self.folder.exists():
            return False
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            return False
        try:
            found = json.loads((self.folder / WORK).read_bytes())["key"]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != self.key:
            raise UndersongError(
                f"{self.folder} exists and holds something else than these items by this encoder; name a new folder."
            )
        return True

    def missing(self) -> list[int]:
        """Numbers of the shards without a marker, in order."""
        done = {path.name for path in self.draft.glob("embeddings-*.done")}
        return [number for number in range(self.shards) if self.marker(number).name not in done]

    def write(self, number: int, made: Embeddings) -> None:
        """A shard, then its marker: with a marker the shard is whole and on disk, and all of it is accounted for."""
        import pyarrow.parquet as pq

        with replacing(self.file(number)) as temporary:
            pq.write_table(vectors_table(made.ids, made.vectors, made.frames), temporary)
        left_out = [[item.id, item.reason] for item in made.quarantined]
        done = {"rows": len(made.ids), "sha256": hash_file(self.file(number)), "quarantined": left_out}
        write_atomic(self.marker(number), json.dumps(done, ensure_ascii=False).encode())

    def finish(self, facts: dict[str, Any], left_out: Sequence[Quarantined] = ()) -> None:
        """The draft becomes `folder`: the shards, one `quarantine.parquet` (`left_out` first), and `work.json`.

        Raises UndersongError for a shard that is missing or is not what its marker says (its marker goes, so that the
        next run makes it again), and where all vectors are equal.  A second finisher finds the work done.
        """
        import pyarrow.parquet as pq

        if self.finished():
            return
        if missing := self.missing():
            raise UndersongError(
                f"{len(missing)} of {self.shards} shards are missing in {self.draft}, the first {missing[0]}; run "
                "again without --shard to make them."
            )
        markers = [self._checked(number) for number in range(self.shards)]
        self._check_spread()
        lost = [Quarantined(*item) for marker in markers for item in marker["quarantined"]]
        with replacing(self.draft / QUARANTINE) as temporary:
            pq.write_table(quarantine_table((*left_out, *lost)), temporary)
        hashes = [marker["sha256"] for marker in markers]
        work = {**facts, "key": self.key, "items": self.items, "rows": self.rows, "shards": hashes}
        write_atomic(self.draft / WORK, (json.dumps(work, indent=1) + "\n").encode())
        shutil.rmtree(self.draft / SAMPLES, ignore_errors=True)
        for stray in self.draft.glob(f"{WRITING}*"):  # of killed runs
            stray.unlink(missing_ok=True)
        self.draft.replace(self.folder)
        for number in range(self.shards):  # only now: before, a kill would have lost what they vouch for
            (self.folder / self.marker(number).name).unlink(missing_ok=True)

    def quarantined(self) -> int:
        """How many items of a finished folder were left out."""
        import pyarrow.parquet as pq

        return int(pq.read_metadata(self.folder / QUARANTINE).num_rows)

    def _checked(self, number: int) -> dict[str, Any]:
        marker = self.marker(number)
        try:
            done: dict[str, Any] = json.loads(marker.read_bytes())
            whole = hash_file(self.file(number)) == done["sha256"]
        except (ValueError, KeyError, TypeError, UndersongError):
            whole = False
        if not whole:
            marker.unlink(missing_ok=True)
            raise UndersongError(f"{self.file(number)} is not what was written; run again, which makes it anew.")
        return done

    def _check_spread(self) -> None:
        """The encoder's own check saw one shard at a time; a few equal items in one are no fault, all in all are."""
        first, compared = None, 0
        for vector in self._vectors():
            if first is None:
                first, tolerance = vector, SAME_VECTOR * float(abs(vector).max())
            elif vector.shape != first.shape:
                raise UndersongError(
                    f"{self.draft} holds vectors of {len(first)} and {len(vector)} dimensions; delete it and embed "
                    "again."
                )
            elif abs(vector - first).max() > tolerance:
                return
            compared += 1
        if compared > 1:
            raise UndersongError(
                f"The encoder gave the same vector to all {compared} items, so no distance means anything; check its "
                f"weights and the audio files, then delete {self.draft}."
            )

    def _vectors(self) -> Iterator[Any]:
        for number in range(self.shards):
            for group in range(row_groups(self.file(number))):
                for part in stream_embeddings(self.file(number), group, 1024):
                    yield from part.vectors
