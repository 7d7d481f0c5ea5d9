"""The run-noise floor of results.json: how far trainings on the very same samples differ by their seed alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.results.rates import attack_rate, find_rate
from undersong.statistics import run_noise

Run = Mapping[str, Any]


def noise_entries(runs: Sequence[Run], plain: str, last: int) -> list[dict[str, Any]]:
    """One entry a base, training modality, harmful set and prompt modality: JSR at the last step, undefended.

    Replicates are runs with the same ids in their selection and other seeds; two arms that trained on the same ids with
    the same seed are one training and count once.
    """
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last]
    asked = sorted({(e["set"], e["modality"]) for run in tuned for e in run["sets"] if e["harmful"]})
    cells = dict.fromkeys((run["model"], run["train_modality"]) for run in tuned)
    return [
        {
            "model": model,
            "train_modality": trained,
            "set": name,
            "modality": modality,
            "scope": "recipe",
            **asdict(run_noise(_replicates([r for r in tuned if _cell(r) == (model, trained)], name, modality, plain))),
        }
        for model, trained in cells
        for name, modality in asked
    ]


def _cell(run: Run) -> tuple[str, str]:
    return run["model"], run["train_modality"]


def _replicates(runs: Sequence[Run], name: str, modality: str, plain: str) -> dict[str, list[float]]:
    """Ids hash -> JSR by seed."""
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        entry = find_rate(run, name, modality, plain)
        if entry is not None:
            found[run["selection_hash"]][run["seed"]] = attack_rate(entry)
    return {key: list(by_seed.values()) for key, by_seed in found.items()}
