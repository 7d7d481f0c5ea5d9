"""The run-noise floor of results.json: how far trainings on the very same samples differ by their seed alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.evaluation.rates import attack_rate, find_set_entry
from undersong.statistics import run_noise

RunEntry = Mapping[str, Any]


def run_noise_entries(runs: Sequence[RunEntry], plain: str, last_step: int) -> list[dict[str, Any]]:
    """One entry a base, training modality, harmful set and prompt modality: JSR at the last step, undefended.

    Replicates are runs with the same ids in their selection and other seeds; two arms that trained on the same ids with
    the same seed are one training and count once.
    """
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == last_step]
    prompt_sets = sorted(
        {(entry["set"], entry["modality"]) for run in tuned for entry in run["sets"] if entry["harmful"]}
    )
    cells = dict.fromkeys((run["model"], run["train_modality"]) for run in tuned)
    return [
        {
            "model": model,
            "train_modality": train_modality,
            "set": name,
            "modality": modality,
            "scope": "recipe",
            **asdict(
                run_noise(
                    _jsr_replicates(
                        [r for r in tuned if _model_and_modality(r) == (model, train_modality)], name, modality, plain
                    )
                )
            ),
        }
        for model, train_modality in cells
        for name, modality in prompt_sets
    ]


def _model_and_modality(run: RunEntry) -> tuple[str, str]:
    return run["model"], run["train_modality"]


def _jsr_replicates(runs: Sequence[RunEntry], set_name: str, modality: str, plain: str) -> dict[str, list[float]]:
    """Ids hash -> JSR by seed."""
    jsr_by_selection: dict[str, dict[int, float]] = defaultdict(dict)
    for run in runs:
        entry = find_set_entry(run, set_name, modality, plain)
        if entry is not None:
            jsr_by_selection[run["selection_hash"]][run["seed"]] = attack_rate(entry)
    return {key: list(by_seed.values()) for key, by_seed in jsr_by_selection.items()}
