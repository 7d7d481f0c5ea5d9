"""Variance of the jailbreak rate over runs: noise between training seeds, and variance components."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.evaluation.rates import attack_rate, find_set_entry
from undersong.results.records import AuditRecord, RunRecord
from undersong.statistics import RunLabels, run_noise, variance_components
from undersong.types import Verdict

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


VerdictsByArtifact = Mapping[str, Sequence[Verdict]]  # artifact hash -> verdicts


def variance_entries(record: AuditRecord, verdicts: VerdictsByArtifact, last_step: int) -> list[dict[str, Any]]:
    """One entry a training modality, harmful set and prompt modality: JSR at the last step, undefended, all bases.

    Arms of a base that trained on the same ids with the same seed are one training, and count once, as the first.
    """
    tuned = [run for m in record.models for run in m.runs if run.arm.selection is not None and run.step == last_step]
    plain, entries = record.study.undefended_system, []
    for train_modality in sorted({str(run.arm.modality) for run in tuned}):
        runs = _distinct_trainings(run for run in tuned if run.arm.modality == train_modality)
        prompt_sets = {
            (verdict.set, verdict.modality)
            for run in runs.values()
            for verdict in verdicts[run.verdicts.hash]
            if verdict.harmful
        }
        for prompt_set in sorted(prompt_sets):
            outcomes = {
                label: [v for v in verdicts[run.verdicts.hash] if (v.set, v.modality, v.system) == (*prompt_set, plain)]
                for label, run in runs.items()
            }
            entries.append(
                {
                    "train_modality": train_modality,
                    "set": prompt_set[0],
                    "modality": prompt_set[1],
                    **_variance_entry(outcomes),
                }
            )
    return entries


def _distinct_trainings(runs: Iterable[RunRecord]) -> dict[RunLabels, RunRecord]:
    trainings: dict[tuple[Any, ...], tuple[RunLabels, RunRecord]] = {}
    for run in runs:
        arm = run.arm
        assert arm.selection is not None, "the base is not tuned"
        selection = (arm.axis, arm.kind, arm.fraction, arm.rule, arm.harm_set)
        base, ids = (arm.model, arm.base_seed), arm.selection.ids_hash
        trainings.setdefault((base, ids, arm.seed), (RunLabels(base, selection, ids, arm.seed), run))
    return dict(trainings.values())


def _variance_entry(outcomes: Mapping[RunLabels, Sequence[Verdict]]) -> dict[str, Any]:
    first_outcomes = next(iter(outcomes.values()))
    values = [[v.verdict == "jailbreak" for v in run_outcomes] for run_outcomes in outcomes.values()]
    return {
        "scope": "recipe",
        "n": len(first_outcomes),
        **asdict(variance_components(list(outcomes), values, [v.cluster for v in first_outcomes])),
    }
