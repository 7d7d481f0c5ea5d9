"""Results of the defenses: effect, cost and recommendation for each architecture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from undersong.research.defenses.recommendation import is_safe, recommend
from undersong.research.defenses.tradeoff import DefenseCondition, safety_utility_tradeoff
from undersong.results.schema import DefendedRun, DefenseCpuSeconds, RunResult
from undersong.results.schema_base import ValueWithInterval
from undersong.results.schema_defenses import (
    ChosenSetting,
    DefenseRecommendation,
    DefenseRecord,
    SafetyLimitsRecord,
    SteeringSetting,
    TargetLosses,
)
from undersong.stages.black_box_models import is_black_box
from undersong.statistics.runs import mean_runs
from undersong.store.store import Artifact
from undersong.study.results.records import AuditRecord, DefenseArtifacts, RunRecord
from undersong.study.schema import Study

MIN_LOSS_REDUCTION = 0.05  # nats a token of the replies


def defended_run(result: RunResult, run: RunRecord) -> DefendedRun:
    """Add to a run the changed modules, the chosen settings, and the retained share of what the tuning taught."""
    defense = run.defense
    assert defense is not None
    losses = [_read_json(artifact, "retention_loss.json")["loss"] for artifact in defense.losses]
    choice, stopped = _chosen_setting(defense), defense.trained_adapter.provenance()["notes"].get("stopped")
    return DefendedRun(
        **dict(result),
        defense=defense.name,
        changes=list(defense.changes),
        retuned=defense.again,
        target_losses=TargetLosses(**dict(zip(("base", "undefended", "defended"), losses))) if losses else None,
        retention=_retention(losses),
        retention_known=None not in losses,
        chosen_setting=choice,
        stopped_at_step=stopped,
        chosen_text=_describe_choice(choice, stopped) or None,
    )


def _retention(losses: Sequence[float | None]) -> float | None:
    """Retention (base - defended) / (base - undefended): 1 as learned without a defense, 0 as before tuning.

    None if it was not measured, or if the tuning taught almost nothing, so that the share would be noise. 0 if it
    taught nothing and the replies got worse than the base's.
    """
    if not losses or None in losses:
        return None
    base, undefended, defended = (float(loss) for loss in losses if loss is not None)
    if base - undefended < MIN_LOSS_REDUCTION:
        # The tuning taught nothing, but a defense may still make the replies worse than the base's.
        return 0.0 if defended - base > MIN_LOSS_REDUCTION else None
    return (base - defended) / (base - undefended)


def _describe_choice(choice: ChosenSetting | None, stopped: int | None) -> str:
    """Describe how the defense of this run was chosen, as far as a reader must know it."""
    phrases = [] if stopped is None else [f"stopped at step {stopped}"]
    if choice is not None and choice.changed_modules is not None:
        modules = choice.changed_modules
        phrases.append(
            f"without {', '.join(sorted(modules)) or 'nothing'}"
            if all(name.startswith("layer ") for name in modules)
            else f"{len(modules)} modules changed"
        )
    if choice is not None and choice.steering_tried:
        phrases.append(
            "no strength was found"
            if choice.steering is None
            else f"layer {choice.steering.layer}, strength {choice.steering.strength:g}"
        )
    return ", ".join(phrases)


def _chosen_setting(defense: DefenseArtifacts) -> ChosenSetting | None:
    """Which parts of the adapter were changed, or where and how strongly it is steered."""
    changed, steering = None, None
    if defense.edited_adapter is not None:
        changed = _read_json(defense.edited_adapter, "adapter_edit.json")["changed_modules"]
    if defense.steering is not None and (chosen := _read_json(defense.steering, "steering.json")["chosen"]):
        steering = SteeringSetting(layer=chosen["layer"], strength=chosen["strength"])
    if changed is None and defense.steering is None:
        return None
    return ChosenSetting(changed_modules=changed, steering_tried=defense.steering is not None, steering=steering)


def _read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    return json.loads((artifact.path / name).read_text(encoding="utf-8"))


def defense_cpu_seconds(record: AuditRecord) -> dict[str, DefenseCpuSeconds]:
    """Return the CPU seconds per run of each defense (`none`: undefended), with intervals over runs.

    They are given for making a run (training, choices and edits) and for generating its replies. They depend on the
    machine, so they are part of the provenance and not of the results.
    """
    last_step = record.study.tuning.save_steps[-1]
    make_seconds: dict[str, list[float]] = {}
    ask_seconds: dict[str, list[float]] = {}
    for model in record.models:
        undefended = [run for run in model.runs if (run.arm.kind, run.arm.rule, run.step) == ("closest", "", last_step)]
        for run in (*undefended, *(run for run in model.defended_runs if run.defense and not run.defense.again)):
            defense = run.defense
            name = defense.name if defense else "none"
            parts = (defense.trained_adapter, defense.edited_adapter, defense.steering) if defense else (run.adapter,)
            make_seconds.setdefault(name, []).append(sum(_cpu_seconds(part) for part in parts if part is not None))
            ask_seconds.setdefault(name, []).append(_cpu_seconds(run.replies))
    return {
        name: DefenseCpuSeconds(
            training=_mean_with_interval(make_seconds[name]), generation=_mean_with_interval(ask_seconds[name])
        )
        for name in make_seconds
    }


def _cpu_seconds(artifact: Artifact) -> float:
    return float(artifact.provenance()["cpu_seconds"])


def _mean_with_interval(values: Sequence[float]) -> ValueWithInterval:
    mean = mean_runs(values)
    return ValueWithInterval(value=mean.mean, low=mean.low, high=mean.high)


def defense_records(
    record: AuditRecord, runs: Sequence[RunResult], defended: Sequence[DefendedRun]
) -> list[DefenseRecord]:
    """Compute the rows of the undefended closest arm, then of each defense; one block an architecture and axis."""
    study = record.study
    if "closest" not in study.selection.kinds:
        return []
    limits = study.safety_limits
    rows = [
        row
        for family, refs in _models_by_family(study).items()
        for axis in study.selection.axes
        for row in safety_utility_tradeoff(
            [run for run in (*runs, *defended) if run.model in refs],
            _study_conditions(study),
            last_step=study.tuning.save_steps[-1],
            axis=axis,
            family=family,
        )
    ]
    return [row.model_copy(update={"safe": is_safe(row, limits.max_jsr, limits.max_over_refusal)}) for row in rows]


def _study_conditions(study: Study) -> list[DefenseCondition]:
    """Conditions that follow from the arms and system prompts if the study names no defense; then its own defenses."""
    conditions = [DefenseCondition("none", "closest", study.undefended_system)]
    if "distant" in study.selection.kinds and not study.defenses:
        conditions.append(DefenseCondition("distant data", "distant", study.undefended_system))
    if study.system_defense is not None and not study.defenses:
        conditions.append(DefenseCondition("system prompt", "closest", study.system_defense))
    study_defenses = study.defenses.items()
    return [
        *conditions,
        *(
            DefenseCondition(name, "closest", defense.system or study.undefended_system, defense.changes)
            for name, defense in study_defenses
        ),
    ]


def _models_by_family(study: Study) -> dict[str | None, list[str]]:
    from undersong.models.refs import resolve_model

    models: dict[str | None, list[str]] = {}
    for ref in study.models:
        models.setdefault(None if is_black_box(ref) else resolve_model(ref)[2].name, []).append(ref)
    return models


def recommendation_records(study: Study, rows: Sequence[DefenseRecord]) -> list[DefenseRecommendation]:
    """Recommend a defense for each undefended arm that something was tried against."""
    groups: dict[tuple[str | None, str], list[DefenseRecord]] = {}
    for row in rows:
        groups.setdefault((row.family, row.undefended_arm), []).append(row)
    limits = study.safety_limits
    records = []
    for arm_rows in groups.values():
        if len(arm_rows) > 1:
            first, recommended = arm_rows[0], recommend(arm_rows, limits.max_jsr, limits.max_over_refusal)
            records.append(
                DefenseRecommendation(
                    family=first.family,
                    axis=first.axis,
                    fraction=first.fraction,
                    train_modality=first.train_modality,
                    undefended_arm=first.undefended_arm,
                    defense=recommended.defense,
                    reason=recommended.reason,
                    safety_limits=SafetyLimitsRecord(max_jsr=limits.max_jsr, max_over_refusal=limits.max_over_refusal),
                )
            )
    return records
