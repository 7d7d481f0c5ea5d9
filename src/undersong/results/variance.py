"""Where the spread of JSR over a study's runs comes from: `variance` of results.json.  Knows runs and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.results.records import AuditRecord, RunRecord
from undersong.statistics import RunLabels, variance_components
from undersong.types import Verdict

VerdictsByArtifact = Mapping[str, Sequence[Verdict]]  # artefact hash -> verdicts


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
