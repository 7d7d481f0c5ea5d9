"""Figures in the layout of the published paper, by matplotlib, each as PDF and PNG.

The paper's: JSR by axis and fraction; base against closest, random and distant; training on audio against text;
refusal gap by layer, asked in writing and by voice.  One whose numbers the results lack is not drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.report import paper_figures
from undersong.report.figures import kinds, layers, modality
from undersong.report.paper_figures_common import matplotlib_style
from undersong.results.schema import parse_results
from undersong.store import write_atomic
from undersong.types import UndersongError

FIGURES = {
    "jsr-by-axis-and-fraction": paper_figures.draw_jsr_by_axis,
    "base-closest-random-distant": kinds.draw_jsr_by_kind,
    "audio-against-text": modality.draw_jsr_by_modality,
    "refusal-gap-by-layer": layers.draw_refusal_gap,
}


def write_figures(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """The files written.  Equal results give equal bytes.  Errors: broken results; nothing that could be drawn."""
    parsed, output_folder = parse_results(results), Path(folder)
    if output_folder.exists() and not output_folder.is_dir():
        raise UndersongError(f"{output_folder} is a file; give a folder for the figures.")
    paths = []
    with matplotlib_style():
        for name, draw in FIGURES.items():
            figure = draw(parsed)
            if figure is None:
                continue
            output_folder.mkdir(parents=True, exist_ok=True)
            for extension, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                file = io.BytesIO()
                figure.savefig(file, format=extension, metadata=metadata)
                write_atomic(output_folder / f"{name}.{extension}", file.getvalue())
                paths.append(output_folder / f"{name}.{extension}")
    if not paths:
        raise UndersongError(
            f"{parsed.study.name} has no fine-tuned arm that was asked harmful prompts, so nothing is drawn."
        )
    return paths
