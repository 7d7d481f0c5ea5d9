"""Reading and writing of `embeddings-*.parquet`."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from undersong.corpora.parquet_size import check_decoded_size
from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.sparse_vectors import (
    is_sparse,
    is_sparse_schema,
    read_sparse_column,
    sparse_column,
    stack_rows,
    with_width,
)
from undersong.escaping import describe_error
from undersong.regular_files import check_regular_file
from undersong.store.hashing import hash_file
from undersong.store.parquet import parquet_file, read_parquet, write_parquet
from undersong.store.store import repair_hint
from undersong.types import Embeddings, Quarantined, UndersongError, Vectors

if TYPE_CHECKING:
    import pyarrow as pa


ROWS_PER_FILE = 65_536  # rows a file
MAPPED_BYTES = 2**30  # vectors from this size on are mapped from disk where the caller has room for a scratch file
STREAM_ROWS = 4096  # rows that are held at a time while they are mapped
QUARANTINE_FILE = "quarantine.parquet"


def write_embeddings(embeddings: Embeddings, folder: Path) -> None:
    """Write `embeddings-*.parquet` (id, embedding, frames) and `quarantine.parquet` (id, reason).

    The column embedding is a fixed-size list of float32, or for sparse vectors a struct of indices and values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard, start in enumerate(range(0, max(1, len(embeddings.ids)), ROWS_PER_FILE)):
        rows = slice(start, start + ROWS_PER_FILE)
        table = embeddings_table(embeddings.ids[rows], embeddings.vectors[rows], embeddings.frames[rows])
        write_parquet(table, folder / f"embeddings-{shard:05d}.parquet")
    write_parquet(quarantine_table(embeddings.quarantined), folder / QUARANTINE_FILE)


def embeddings_table(ids: Sequence[str], vectors: Vectors, frames: np.ndarray) -> pa.Table:
    """Table of `vectors` (n, dim) with the columns id, embedding and frames."""
    import pyarrow as pa

    if is_sparse(vectors):
        columns = {"id": pa.array(ids, pa.string()), "embedding": sparse_column(vectors)}
        return with_width(pa.table(columns | {"frames": pa.array(frames, pa.int64())}), vectors.shape[1])
    values = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1] or 1)  # no rows, no width
    return pa.table({"id": pa.array(ids, pa.string()), "embedding": embedding, "frames": pa.array(frames, pa.int64())})


def quarantine_table(quarantined: tuple[Quarantined, ...]) -> pa.Table:
    """Table with the columns id and reason."""
    import pyarrow as pa

    columns = {"id": [item.id for item in quarantined], "reason": [item.reason for item in quarantined]}
    return pa.table(columns, schema=pa.schema({"id": pa.string(), "reason": pa.string()}))


def read_embeddings(path: str | Path, scratch: Path | None = None) -> Embeddings:
    """Read embeddings from a Parquet file, a folder of `embeddings-*.parquet`, or a pattern with wildcards.

    The columns are id, embedding (a list of numbers of one width) and frames (optional, default 0). Rows without a
    vector, or with a zero, NaN or infinite one, are quarantined in addition to the folder's own `quarantine.parquet`.

    Args:
        path: The file, folder or pattern.
        scratch: A folder on disk. Vectors of `MAPPED_BYTES` or more are then mapped into memory from an unnamed file
            in it, so that a pool larger than memory can be read.

    Raises:
        UndersongError: Missing files or columns, different widths, or missing or repeated ids.
    """
    files = embedding_files(path)
    if scratch is not None and _dense_bytes(files) >= MAPPED_BYTES:
        return _map_embeddings(path, files, scratch)
    chunks = [_read_file(file) for file in files]
    widths = {vectors.shape[1]: file for file, (_, vectors, _, _) in zip(files, chunks) if vectors.shape[0]}
    if len(widths) > 1:
        (a, first), (b, second) = list(widths.items())[:2]
        raise UndersongError(f"Vectors in {first} have {a} dimensions, in {second} {b}; embed all with one encoder.")
    ids = [id for chunk in chunks for id in chunk[0]]
    missing = [Quarantined(id, "no embedding") for chunk in chunks for id in chunk[3]]
    quarantined = [*missing, *read_quarantine(path)]
    check_unique([*ids, *(item.id for item in quarantined)], path)
    matrix = stack_rows([chunk[1] for chunk in chunks if chunk[1].shape[0]] or [np.zeros((0, 0), np.float32)])
    # Equal vectors are allowed: one request in several voices has one text vector. Equal scores are an error later.
    return validate_embeddings(
        str(path), ids, matrix, np.concatenate([chunk[2] for chunk in chunks]), quarantined, allow_equal=True
    )


def drop_embeddings(embeddings: Embeddings, dropped: Sequence[Quarantined], scratch: Path | None = None) -> Embeddings:
    """Remove the items in `dropped` from the embeddings and quarantine each of them once, with its reason.

    `scratch` is that of `read_embeddings`. If nothing is removed, the vectors are the same array.
    """
    dropped_ids = {item.id for item in dropped}
    rows = np.array([row for row, id in enumerate(embeddings.ids) if id not in dropped_ids], np.int64)
    already_quarantined = [item for item in embeddings.quarantined if item.id not in dropped_ids]
    quarantined = (*already_quarantined, *dropped)
    if len(rows) == len(embeddings.ids):
        return replace(embeddings, quarantined=quarantined)
    vectors = embeddings.vectors
    if scratch is not None and not is_sparse(vectors) and vectors.nbytes >= MAPPED_BYTES and len(rows):
        dense = vectors
        blocks = (dense[rows[start : start + STREAM_ROWS]] for start in range(0, len(rows), STREAM_ROWS))
        vectors = _map_rows(blocks, scratch)
    else:
        vectors = vectors[rows]
    return Embeddings(tuple(embeddings.ids[row] for row in rows), vectors, embeddings.frames[rows], quarantined)


def remove_items(embeddings: Embeddings, ids: Collection[str], scratch: Path | None = None) -> Embeddings:
    """Remove items as if they had never been there; `scratch` is that of `read_embeddings`."""
    kept = drop_embeddings(embeddings, [Quarantined(id, "") for id in ids], scratch)
    return replace(kept, quarantined=tuple(item for item in embeddings.quarantined if item.id not in ids))


def _dense_bytes(files: Sequence[Path]) -> int:
    """Bytes of dense vectors in the files; sparse ones count as nothing, because they fit in memory."""
    import pyarrow.parquet as pq

    total = 0
    for file in files:
        with _arrow_errors(file):
            metadata = pq.read_metadata(file)
            schema = pq.read_schema(file)
        if is_sparse_schema(schema):
            continue
        total += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return total


def _map_embeddings(path: str | Path, files: Sequence[Path], scratch: Path) -> Embeddings:
    """As `read_embeddings`, `STREAM_ROWS` rows at a time."""
    ids: list[str] = []
    quarantined: list[Quarantined] = []
    frames: list[np.ndarray] = []

    def blocks() -> Iterator[np.ndarray]:
        for file in files:
            for chunk in stream_embeddings(file, STREAM_ROWS):
                ids.extend(chunk.ids)
                quarantined.extend(chunk.quarantined)
                frames.append(chunk.frames)
                yield chunk.vectors

    vectors = _map_rows(blocks(), scratch)
    quarantined += read_quarantine(path)
    check_unique([*ids, *(item.id for item in quarantined)], path)
    return Embeddings(tuple(ids), vectors, np.concatenate(frames), tuple(quarantined))


def _map_rows(blocks: Iterable[np.ndarray], scratch: Path) -> np.ndarray:
    """(n, d) float32: the rows of `blocks` (b, d), mapped read-only from a file in `scratch` that has no name."""
    width = 0
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=scratch) as file:
        for block in blocks:
            if not len(block):
                continue
            width = width or block.shape[1]
            if block.shape[1] != width:
                raise UndersongError(
                    f"Vectors have {width} and {block.shape[1]} dimensions; embed all with one encoder."
                )
            file.write(np.ascontiguousarray(block, np.float32).data)
        if not width:
            return np.zeros((0, 0), np.float32)
        shape = file.tell() // (4 * width), width
        file.flush()
        return np.memmap(file, np.float32, "r", shape=shape).view(np.ndarray)


def stream_embeddings(file: Path, rows: int) -> Iterator[Embeddings]:
    """A file, `rows` at a time, as `read_embeddings` would read them.

    The caller has to check repeated ids, different widths, and the quarantine of the folder.
    """
    import pyarrow as pa

    with _arrow_errors(file):
        check_decoded_size(file)
    # Through a buffer: else all vectors of a row group are read before the first batch.
    with _arrow_errors(file), parquet_file(file, buffer_size=2**20) as parquet:
        for batch in parquet.iter_batches(rows):
            ids, vectors, frames, missing = _rows(file, pa.Table.from_batches([batch]))
            quarantined = [Quarantined(id, "no embedding") for id in missing]
            yield validate_embeddings(str(file), ids, vectors, frames, quarantined, allow_equal=True)


def read_quarantine(path: str | Path) -> list[Quarantined]:
    """Read `quarantine.parquet` of a folder. Next to a single file a quarantine may be another stage's, so it is
    ignored.
    """
    return _read_quarantine_file(Path(path) / QUARANTINE_FILE) if Path(path).is_dir() else []


def holds_embeddings(path: str | Path) -> bool:
    """True if a path holds embeddings rather than a manifest."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    if path.is_dir():
        return any(path.glob("embeddings-*.parquet"))
    if not path.exists():
        if "*" in path.name or "?" in path.name:
            return True
        raise UndersongError(f"There is no file {path}; check the path.")
    check_regular_file(path)
    if path.suffix.lower() != ".parquet":
        return False
    try:
        return "embedding" in pq.read_schema(path).names
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UndersongError(
            f"{path} is not a readable Parquet file ({describe_error(error)}); {repair_hint(path)}."
        ) from None


def embedding_files(path: str | Path) -> list[Path]:
    """Files that `read_embeddings` reads, sorted. Raises UndersongError if there are none."""
    path = Path(path)
    if path.exists() and not path.is_dir():
        check_regular_file(path)
        return [path]
    files = sorted(path.glob("embeddings-*.parquet")) if path.is_dir() else sorted(path.parent.glob(path.name))
    for file in files:
        check_regular_file(file)
    if not files:
        raise UndersongError(f"No embeddings at {path}; give a Parquet file or a folder with embeddings-*.parquet.")
    return files


def embeddings_hash(path: str | Path) -> str:
    """SHA-256 of all files that `read_embeddings` reads."""
    files = embedding_files(path)
    if Path(path).is_dir() and (quarantine_file := Path(path) / QUARANTINE_FILE).is_file():
        files.append(quarantine_file)
    return hashlib.sha256("\n".join(map(hash_file, files)).encode()).hexdigest()


def check_unique(ids: list[str], source: str | Path) -> None:
    """Raise UndersongError for repeated ids (they would be trained on twice), empty ids, and ids with line breaks."""
    if invalid := [id for id in ids if not id or "\n" in id]:
        raise UndersongError(f"Id {invalid[0]!r} in {source} cannot be used; give every item one, without line breaks.")
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        duplicate = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise UndersongError(f"Id {duplicate!r} occurs more than once in {source}; give every item its own id.")


def _read_file(file: Path) -> tuple[list[str], Vectors, np.ndarray, list[str]]:
    """Content of one file: ids, vectors (n, d) float32, frames (n,), ids without a vector."""
    with _arrow_errors(file):
        check_decoded_size(file)
        return _rows(file, read_parquet(file))


@contextmanager
def _arrow_errors(file: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UndersongError(
            f"{file} is not a readable Parquet file ({describe_error(error)}); {repair_hint(file)}."
        ) from None


def _rows(file: Path, table: pa.Table) -> tuple[list[str], Vectors, np.ndarray, list[str]]:
    """Content of a table of `file`, as in `_read_file`."""
    import pyarrow.compute as pc

    if missing_columns := [name for name in ("id", "embedding") if name not in table.column_names]:
        raise UndersongError(
            f"{file} has no column {missing_columns[0]!r}; embeddings need the columns id and embedding."
        )
    if table.column("id").null_count:
        raise UndersongError(f"{file} has {table.column('id').null_count} rows without id; give every row one.")
    has_vector = pc.is_valid(table.column("embedding"))
    without_vector, table = table.filter(pc.invert(has_vector)), table.filter(has_vector)
    frames = table.column("frames").to_numpy() if "frames" in table.column_names else np.zeros(len(table))
    return _ids(table), table_vectors(file, table), frames, _ids(without_vector)


def _ids(table: pa.Table) -> list[str]:
    return [str(id) for id in table.column("id").to_pylist()]


def table_vectors(file: Path, table: pa.Table) -> Vectors:
    """Vectors (n, d) float32 of a table of `file` without nulls in its column embedding."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if is_sparse_schema(table.schema):
        return read_sparse_column(file, table)
    column = table.column("embedding")
    column_type = column.type
    is_list = (
        pa.types.is_fixed_size_list(column_type) or pa.types.is_list(column_type) or pa.types.is_large_list(column_type)
    )
    if not is_list or not pa.types.is_floating(column_type.value_type):
        raise UndersongError(f"Column embedding of {file} holds {column_type}; write a fixed-size list of float32.")
    lengths = pc.unique(pc.list_value_length(column)).to_pylist()
    if len(lengths) > 1:
        raise UndersongError(
            f"Vectors in {file} have {lengths[0]} and {lengths[1]} dimensions; embed all with one encoder."
        )
    if not lengths:
        return np.zeros((0, 0), np.float32)
    values = pa.chunked_array([chunk.flatten() for chunk in column.chunks]).to_numpy()
    return values.astype(np.float32, copy=False).reshape(len(table), lengths[0])


def _read_quarantine_file(file: Path) -> list[Quarantined]:

    if not file.is_file():
        return []
    with _arrow_errors(file):
        table = read_parquet(file, columns=["id", "reason"])
    return [Quarantined(id, reason) for id, reason in zip(*(column.to_pylist() for column in table.columns))]
