"""Figures in the layout of the published paper, by matplotlib, each as PDF and PNG.

The paper's: JSR by axis and fraction; base against closest, random and distant; training on audio against text;
refusal gap by layer, asked in writing and by voice.  One whose numbers the results lack is not drawn.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.report.figures import axes, kinds, layers, modality
from undersong.report.figures.drawing import style
from undersong.report.schema import read
from undersong.store import write_atomic
from undersong.types import UndersongError

DRAWN = {
    "jsr-by-axis-and-fraction": axes.draw,
    "base-closest-random-distant": kinds.draw,
    "audio-against-text": modality.draw,
    "refusal-gap-by-layer": layers.draw,
}


def write_figures(results: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """The files written.  Equal results give equal bytes.  Errors: broken results; nothing that could be drawn."""
    found, out = read(results), Path(folder)
    if out.exists() and not out.is_dir():
        raise UndersongError(f"{out} is a file; give a folder for the figures.")
    written = []
    with style():
        for name, draw in DRAWN.items():
            figure = draw(found)
            if figure is None:
                continue
            out.mkdir(parents=True, exist_ok=True)
            for ending, facts in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
                file = io.BytesIO()
                figure.savefig(file, format=ending, metadata=facts)
                write_atomic(out / f"{name}.{ending}", file.getvalue())
                written.append(out / f"{name}.{ending}")
    if not written:
        raise UndersongError(
            f"{found.study.name} has no fine-tuned arm that was asked harmful prompts, so nothing is drawn."
        )
    return written
