"""The page of checked or screened data: verdict, histogram, map, table and players in one HTML file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from undersong.pages.clip_embedding import EmbeddedClips, embed_clips
from undersong.pages.data_view import DataView, ViewItem, view_file_mode
from undersong.pages.explorer_table import explorer_commands, is_explorer_table, write_explorer_table
from undersong.pages.layout import encode_html, page_script, render_template
from undersong.pages.nearness_histogram import draw_histogram
from undersong.proximity.plane import PCA, project_to_plane
from undersong.regular_files import is_regular_file
from undersong.store.atomic import report_disk_errors, write_atomic
from undersong.types import UndersongError

MAX_SHOWN = 10_000  # samples on a page; a browser shows them at once
MAX_LETTERS = 1_500  # of a text


def write_views(view: DataView, page: str | Path | None, explore: str | Path | None) -> tuple[str, ...]:
    """Write the files that are named; a sentence about each says where it is and what it leaves out.

    With texts or clips of harmful items, their owner alone can read them.

    Args:
        view: What is shown.
        page: HTML file to write, if any.
        explore: Parquet file to write, if any.

    Raises:
        UndersongError: A file cannot be written, or there is nothing to explore.
    """
    sentences = []
    if page is not None:
        clips = embed_clips(_clips_by_nearness(view))
        notes = _omissions(view, clips)
        content = encode_html(render_data_page(view, clips, notes))
        with report_disk_errors(Path(page).parent):
            write_atomic(page, content, view_file_mode(view))
        sentences.append(" ".join((f"The page is {page}; open it in a browser.", *notes)))
    if explore is not None:
        write_explorer_table(view, explore)
        atlas, spotlight = explorer_commands(view, explore)
        sentences.append(f"The table for explorers is {explore}. Open it with one of:")
        sentences += [f"  {atlas}", f"  {spotlight}"]
    return tuple(sentences)


def check_view_paths(page: str | Path | None, explore: str | Path | None) -> None:
    """Check before anything is computed that no other file would be replaced.

    Args:
        page: HTML file to write, if any.
        explore: Parquet file to write, if any.

    Raises:
        UndersongError: A file is there that is no page, or no table for explorers.
    """
    for option, path, is_own in (("--page", page, _is_data_page), ("--explore", explore, is_explorer_table)):
        if path is not None and Path(path).exists() and not is_own(Path(path)):
            raise UndersongError(f"{path} exists and was not written by {option}; name another file.")


def _is_data_page(path: Path) -> bool:
    if not is_regular_file(path):
        return False
    with path.open("rb") as file:
        return b'<meta name="generator" content="undersong data page">' in file.read(4096)


def render_data_page(view: DataView, clips: EmbeddedClips, notes: Sequence[str] = ()) -> str:
    """Render the page.

    Args:
        view: What is shown.
        clips: The clips of `view`, keyed by ("data" or "harm", index).
        notes: Sentences about what is left out.
    """
    coordinates, method = (np.zeros((0, 2)), PCA) if view.vectors is None else project_to_plane(view.vectors, view.seed)
    return render_template(
        "data_page.html",
        view=view,
        notes=[*view.notes, *notes],
        script=page_script("data_page.js"),
        histogram=draw_histogram(view.histogram, view.threshold),
        method=method,
        shown=len(view.samples),
        content=_embed_json(_content(view, coordinates, clips)),
        clips=clips.files,
        axis_meaning=_axis_meaning(view.axis[1]),
    )


def _clips_by_nearness(view: DataView) -> Iterator[tuple[tuple[str, int], str | bytes]]:
    """The clips of all items, each sample's followed by that of its nearest harmful item, nearest first."""
    for i, sample in enumerate(view.samples):
        if sample.audio is not None:
            yield ("data", i), sample.audio
        j = int(view.nearest[i])
        if j >= 0 and (audio := view.harm[j].audio) is not None:
            yield ("harm", j), audio
    for j, item in enumerate(view.harm):
        if item.audio is not None:
            yield ("harm", j), item.audio


def _omissions(view: DataView, clips: EmbeddedClips) -> tuple[str, ...]:
    notes = []
    if len(view.samples) < view.total:
        near = len(view.samples) // 2
        notes.append(
            f"Of {view.total:,} ranked samples the page lists the nearest {near:,} and {len(view.samples) - near:,} of "
            "the others, drawn at random; the histogram counts all."
        )
    if clips.left_out:
        notes.append(
            f"{clips.left_out:,} clips are left out to keep the page small; the {len(clips.files):,} nearest to harm "
            "can be played."
        )
    if clips.unreadable:
        notes.append(f"{clips.unreadable:,} clips could not be decoded and are left out.")
    if clips.shortened:
        notes.append(f"Of {clips.shortened:,} long clips only the beginning can be played.")
    return tuple(notes)


def _axis_meaning(encoder: str) -> str:
    """What an encoder compares, in words."""
    kind = encoder.partition(":")[0]
    meanings = {
        "tfidf": "the words that are used",
        "char-ngrams": "the letters that are used",
        "logmel": "the sound",
        "text": "the meaning of the texts",
        "speech": "the sound of the speech",
        "whisper": "the sound of the speech",
        "internal": "the model’s own view of the sound",
    }
    return meanings.get(kind, f"the vectors of {encoder}")


def _content(view: DataView, coordinates: np.ndarray, clips: EmbeddedClips) -> dict[str, Any]:
    """All that the script draws, column by column."""
    n = len(view.samples)
    points = _scaled(coordinates)
    return {
        "data": {
            **_columns(view.samples, points[:n]),
            "rank": view.ranks.tolist(),
            "distance": _rounded(view.distances),
            "nearer": view.nearer.astype(int).tolist(),
            "nearest": view.nearest.tolist(),
            "clip": [clips.places.get(("data", i), -1) for i in range(n)],
        },
        "harm": {
            **_columns(view.harm, points[n:]),
            "clip": [clips.places.get(("harm", i), -1) for i in range(len(view.harm))],
        },
        "name": view.data,
        "verb": view.verb,
        "dropCommand": view.drop_command,
        "threshold": view.threshold,
    }


def _columns(items: Sequence[ViewItem], points: np.ndarray) -> dict[str, Any]:
    columns: dict[str, Any] = {"id": [item.id for item in items], "text": [_shorten(item.text) for item in items]}
    for name in ("source", "speaker"):
        values = [getattr(item, name) for item in items]
        if any(value is not None for value in values):
            columns[name] = values
    return columns | {"x": points[:, 0].tolist(), "y": points[:, 1].tolist()}


def _scaled(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates from 0 to 1000 on the longer side, in whole numbers."""
    if not len(coordinates):
        return coordinates
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    return np.rint(1000 * (coordinates - low) / span).astype(int)


def _rounded(values: np.ndarray) -> list[float | None]:
    return [round(float(value), 4) if np.isfinite(value) else None for value in values]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_LETTERS else f"{text[: MAX_LETTERS - 1]}…"


def _embed_json(content: Any) -> Markup:
    """JSON that cannot end the script element that it stands in, whatever the texts are."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text.encode("utf-8", "backslashreplace").decode("utf-8"))  # a lone surrogate as JSON writes it
