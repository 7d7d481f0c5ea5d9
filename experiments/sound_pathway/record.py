"""`results.json`: every base and every fine-tuning of the study, kept in the repository since bases are not."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from experiments.sound_pathway.contrast import Run

RESULTS = Path(__file__).parent / "results.json"


class Record:
    """Written after every change, so that a killed run loses nothing."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.data: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}

    def base(self, variant: str, seed: int, number: int | None, facts: dict[str, Any]) -> None:
        """`number`: which accepted base of its variant it is; None: rejected."""
        kept = [one for one in self.data.get("bases", []) if (one["variant"], one["seed"]) != (variant, seed)]
        kept.append({"variant": variant, "seed": seed, "base": number, **facts})
        self.data["bases"] = sorted(kept, key=lambda one: (one["variant"], one["seed"]))
        self._write()
        print(variant, seed, "rejected" if number is None else f"base {number}", facts, flush=True)

    def runs(self, part: str, runs: Iterable[Run]) -> None:
        self.data[part] = [asdict(run) for run in runs]
        self._write()

    def _write(self) -> None:
        self.file.write_text(json.dumps(self.data, indent=1, sort_keys=True) + "\n")
