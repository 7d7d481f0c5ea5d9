"""A screening with its options as keywords."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from undersong.screening.pool.options import ScreeningOptions
from undersong.screening.pool.output import ScreeningResult
from undersong.screening.pool.run import run_screening as run


def screen(pool: str | Path, harm: str | Path | Mapping[str, str | Path], out: str | Path, **options: Any) -> Any:
    """`Screened`; None for a job of its own shards."""
    made: ScreeningResult | None = run(pool, harm, out, ScreeningOptions(**options))
    return made
