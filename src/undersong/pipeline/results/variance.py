"""Where the spread of JSR over a study's runs comes from: `variance` of results.json.  Knows runs and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from undersong.pipeline.records import AuditRecord, RunRecord
from undersong.statistics import RunLabels, variance_components
from undersong.types import Verdict

Verdicts = Mapping[str, Sequence[Verdict]]  # artefact hash -> verdicts


def variance_entries(record: AuditRecord, verdicts: Verdicts, last: int) -> list[dict[str, Any]]:
    """One entry a training modality, harmful set and prompt modality: JSR at the last step, undefended, all bases.

    Arms of a base that trained on the same ids with the same seed are one training, and count once, as the first.
    """
    tuned = [run for m in record.models for run in m.runs if run.arm.selection is not None and run.step == last]
    plain, entries = record.study.plain, []
    for trained in sorted({str(run.arm.modality) for run in tuned}):
        runs = _once(run for run in tuned if run.arm.modality == trained)
        asked = {(v.set, v.modality) for run in runs.values() for v in verdicts[run.verdicts.hash] if v.harmful}
        for one in sorted(asked):
            outcomes = {
                label: [v for v in verdicts[run.verdicts.hash] if (v.set, v.modality, v.system) == (*one, plain)]
                for label, run in runs.items()
            }
            entries.append({"train_modality": trained, "set": one[0], "modality": one[1], **_entry(outcomes)})
    return entries


def _once(runs: Iterable[RunRecord]) -> dict[RunLabels, RunRecord]:
    found: dict[tuple[Any, ...], tuple[RunLabels, RunRecord]] = {}
    for run in runs:
        arm = run.arm
        assert arm.selection is not None, "the base is not tuned"
        selection = (arm.axis, arm.kind, arm.fraction, arm.rule, arm.harm_set)
        base, ids = (arm.model, arm.base_seed), arm.selection.ids_hash
        found.setdefault((base, ids, arm.seed), (RunLabels(base, selection, ids, arm.seed), run))
    return dict(found.values())


def _entry(outcomes: Mapping[RunLabels, Sequence[Verdict]]) -> dict[str, Any]:
    first = next(iter(outcomes.values()))
    values = [[v.verdict == "jailbreak" for v in row] for row in outcomes.values()]
    return {
        "scope": "recipe",
        "n": len(first),
        **asdict(variance_components(list(outcomes), values, [v.cluster for v in first])),
    }
