"""A Parquet file of ranked data for explorers: texts, clips, a map, neighbors and distances, a row for each item.

Columns are as embedding-atlas and Spotlight read them: coordinates `x` and `y`, `neighbors` as row numbers with
distances, and `audio` as the bytes of a file.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from undersong.pages.data_view import DataView, ViewItem, view_file_mode
from undersong.proximity.neighbors import nearest_neighbors
from undersong.proximity.plane import project_to_plane
from undersong.regular_files import is_regular_file
from undersong.store.atomic import atomic_replacement, report_disk_errors
from undersong.store.parquet import write_parquet
from undersong.types import Sample, UndersongError

NEIGHBORS = 10  # of each item
FILE_KEY = b"undersong.explorer"  # in the metadata of the file


def write_explorer_table(view: DataView, path: str | Path) -> None:
    """Write all items of a view, the samples first, then the harmful items.

    Raises:
        UndersongError: Nothing is ranked, or the file cannot be written.
    """
    import pyarrow as pa

    if view.vectors is None:
        raise UndersongError(f"{view.data} is not ranked, so there is nothing to explore; leave --explore out.")
    items = [*view.samples, *view.harm]
    n, m = len(view.samples), len(view.harm)
    points = project_to_plane(view.vectors, view.seed)[0]
    index, distance = nearest_neighbors(view.vectors, min(NEIGHBORS, n + m - 1))
    nothing = [None] * m
    nearest = [view.harm[j] if j >= 0 else None for j in view.nearest.tolist()]
    neighbors = [{"ids": ids, "distances": values} for ids, values in zip(index.tolist(), distance.tolist())]
    columns = {
        "id": pa.array([item.id for item in items], pa.string()),
        "kind": pa.array(["data"] * n + ["harmful"] * m, pa.string()),
        "text": pa.array([item.text for item in items], pa.string()),
        "distance": pa.array([*view.distances.tolist(), *nothing], pa.float64()),
        "rank": pa.array([*view.ranks.tolist(), *nothing], pa.int64()),
        "nearer": pa.array([*view.nearer.tolist(), *nothing], pa.bool_()),
        "nearest_id": pa.array([*(item and item.id for item in nearest), *nothing], pa.string()),
        "nearest_text": pa.array([*(item and item.text for item in nearest), *nothing], pa.string()),
        "source": pa.array([item.source for item in items], pa.string()),
        "speaker": pa.array([item.speaker for item in items], pa.string()),
        "x": pa.array(points[:, 0], pa.float64()),
        "y": pa.array(points[:, 1], pa.float64()),
        "neighbors": pa.array(
            neighbors, pa.struct([("ids", pa.list_(pa.int64())), ("distances", pa.list_(pa.float64()))])
        ),
    }
    if any(item.audio is not None for item in items):
        columns["audio"] = pa.array(list(map(_audio_bytes, items)), pa.binary())
    table = pa.table(columns).replace_schema_metadata({FILE_KEY: b"1"})
    with report_disk_errors(Path(path).parent), atomic_replacement(Path(path), view_file_mode(view)) as temporary:
        write_parquet(table, temporary, compression="zstd", row_group_size=1000)


def is_explorer_table(path: Path) -> bool:
    """True if `write_explorer_table` wrote a file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not is_regular_file(path):
        return False
    try:
        metadata = pq.read_schema(path).metadata
    except (OSError, pa.ArrowInvalid):
        return False
    return FILE_KEY in (metadata or {})


def _audio_bytes(item: ViewItem) -> bytes | None:
    """The file of a clip as it is; None without one, or if it cannot be read."""
    from undersong.corpora.decode import file_bytes

    if item.audio is None or isinstance(item.audio, bytes):
        return item.audio
    try:
        return file_bytes(Sample("clip", item.audio))
    except ValueError:
        return None


def explorer_commands(view: DataView, path: str | Path) -> tuple[str, ...]:
    """Command lines that open the file in embedding-atlas and in Spotlight."""
    file = shlex.quote(str(path))
    has_audio = any(item.audio is not None for item in (*view.samples, *view.harm))
    dtype = " --dtype audio=Audio" if has_audio else ""
    return (
        f"embedding-atlas {file} --text text --x x --y y --neighbors neighbors",
        f"spotlight {file}{dtype}",
    )
