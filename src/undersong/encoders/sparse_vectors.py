"""Sparse vectors of text encoders: their Parquet column, their defects, and a check that they are not all equal.

A row of word counts has a dozen values out of a vocabulary of thousands, so nothing here makes a dense matrix.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from undersong.types import UndersongError, Vectors

if TYPE_CHECKING:
    import pyarrow as pa
    from scipy.sparse import csr_array

WIDTH_KEY = b"undersong.width"  # in a table's metadata: the number of dimensions, which sparse rows do not show
COMPARED_ROWS = 1024  # rows that are compared with the first at a time


def is_sparse(vectors: Vectors) -> TypeGuard[csr_array]:
    """True if the vectors are a scipy.sparse matrix. Loads no scipy."""
    return not isinstance(vectors, np.ndarray)


def canonical_sparse(vectors: Vectors) -> csr_array:
    """Rows as a float32 `csr_array` with sorted indices, and without duplicates and stored zeros."""
    from scipy.sparse import csr_array

    rows = csr_array(vectors, dtype=np.float32, copy=True)
    rows.sum_duplicates()
    rows.eliminate_zeros()
    return rows


def unit_rows(vectors: Vectors) -> Vectors:
    """Rows of length 1 in float64, sparse if the vectors are."""
    if is_sparse(vectors):
        from scipy.sparse import diags_array

        rows = vectors.astype(np.float64)
        return (diags_array(1 / np.sqrt(rows.multiply(rows).sum(axis=1))) @ rows).tocsr()
    rows = vectors.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def row_products(a: Vectors, b: Vectors) -> np.ndarray:
    """Products of all rows of `a` (n, d) with all rows of `b` (m, d), dense (n, m)."""
    products = a @ b.T
    return products.toarray() if is_sparse(products) else products


def sparse_defects(vectors: csr_array) -> list[str | None]:
    """Defect of each row, as `vector_defect` names it; None if it has none."""
    defects: list[str | None] = [None] * vectors.shape[0]
    lengths = np.diff(vectors.indptr)
    for row in np.flatnonzero(lengths == 0).tolist():
        defects[row] = "zero vector"
    invalid = np.flatnonzero(~np.isfinite(vectors.data))
    for row in np.unique(np.searchsorted(vectors.indptr, invalid, side="right") - 1).tolist():
        values = vectors.data[vectors.indptr[row] : vectors.indptr[row + 1]]
        defects[row] = "NaN in vector" if np.isnan(values).any() else "infinite value in vector"
    return defects


def rows_are_equal(vectors: csr_array, relative_tolerance: float) -> bool:
    """True if all rows differ from the first by no more than a fraction of its largest entry."""
    from scipy.sparse import csr_array

    first = vectors[:1].toarray().ravel()
    tolerance = relative_tolerance * float(np.abs(first).max())
    pattern = vectors[:1]
    for start in range(1, vectors.shape[0], COMPARED_ROWS):
        block = vectors[start : start + COMPARED_ROWS]
        copies = csr_array(np.ones((block.shape[0], 1), np.float32)) @ pattern
        difference = (block - copies).data
        if len(difference) and np.abs(difference).max() > tolerance:
            return False
    return True


def stack_rows(blocks: list[Vectors]) -> Vectors:
    """Rows of several blocks of one width, one block after another; sparse if the blocks are."""
    if len(blocks) == 1:
        return blocks[0]
    if any(map(is_sparse, blocks)):
        from scipy.sparse import vstack

        return canonical_sparse(vstack(blocks, format="csr"))
    return np.concatenate(blocks)


def sparse_column(vectors: csr_array, rows: np.ndarray | None = None, count: int = 0) -> pa.Array:
    """Column of sparse rows: a struct of `indices` and `values`.

    Args:
        vectors: The rows.
        rows: Positions of the rows in a column of `count` items; the other items are null. None: the column has the
            rows alone.
        count: Number of items of the column, with `rows`.
    """
    import pyarrow as pa

    vectors = canonical_sparse(vectors)
    lengths = np.diff(vectors.indptr)
    is_missing = None
    if rows is not None:
        all_lengths, missing = np.zeros(count, np.int64), np.ones(count, bool)
        all_lengths[rows], missing[rows] = lengths, False
        lengths, is_missing = all_lengths, pa.array(missing)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    indices = pa.ListArray.from_arrays(offsets, pa.array(vectors.indices, pa.int32()))
    values = pa.ListArray.from_arrays(offsets, pa.array(vectors.data, pa.float32()))
    return pa.StructArray.from_arrays([indices, values], ["indices", "values"], mask=is_missing)


def with_width(table: pa.Table, width: int) -> pa.Table:
    """The table with the number of dimensions of its sparse vectors in its metadata."""
    return table.replace_schema_metadata({**(table.schema.metadata or {}), WIDTH_KEY: str(width).encode()})


def is_sparse_schema(schema: pa.Schema) -> bool:
    """True if the column `embedding` holds sparse rows."""
    import pyarrow as pa

    return "embedding" in schema.names and pa.types.is_struct(schema.field("embedding").type)


def read_sparse_column(file: Path, table: pa.Table) -> csr_array:
    """Sparse rows of the column `embedding`, which has no nulls.

    Raises:
        UndersongError: The column is not what `sparse_column` makes.
    """
    import pyarrow.compute as pc
    from scipy.sparse import csr_array

    column, width = table.column("embedding"), (table.schema.metadata or {}).get(WIDTH_KEY, b"")
    if {field.name for field in column.type} != {"indices", "values"} or not width.isdigit():
        raise UndersongError(
            f"Column embedding of {file} holds {column.type} without its width; write a fixed-size list of float32."
        )
    indices, values = (pc.struct_field(column, name) for name in ("indices", "values"))
    lengths, value_lengths = (pc.list_value_length(part).to_numpy() for part in (indices, values))
    columns = pc.list_flatten(indices).to_numpy().astype(np.int32, copy=False)
    if not np.array_equal(lengths, value_lengths) or (
        len(columns) and not 0 <= columns.min() <= columns.max() < int(width)
    ):
        raise UndersongError(f"Column embedding of {file} names dimensions that it does not have; embed again.")
    data = pc.list_flatten(values).to_numpy().astype(np.float32, copy=False)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return canonical_sparse(csr_array((data, columns, starts), shape=(len(table), int(width))))
