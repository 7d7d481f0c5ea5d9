"""Results of the defenses: effect, cost and recommendation for each architecture."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from undersong.defenses import ARM_KEYS, DefenseCondition, defense_cost, is_safe, recommend, safety_utility_tradeoff
from undersong.results.records import AuditRecord, DefenseArtifacts, RunRecord
from undersong.stages.black_box_models import is_black_box
from undersong.statistics import mean_runs
from undersong.store import Artifact
from undersong.study import Study

Run = Mapping[str, Any]
MIN_LOSS_REDUCTION = 0.05  # nats per token of the replies


def defense_facts(run: RunRecord) -> dict[str, Any]:
    """Facts about a defended run: what was changed, what was chosen, and the retention of what the tuning taught."""
    defense = run.defense
    assert defense is not None
    losses = [_read_json(artifact, "learned.json")["loss"] for artifact in defense.losses]
    loss_by_model = dict(zip(("base", "undefended", "defended"), losses))
    choice, stopped = _defense_choice(defense), defense.trained_adapter.provenance()["notes"].get("stopped")
    return {
        "defense": defense.name,
        "changes": list(defense.changes),
        "again": defense.again,
        "losses": loss_by_model,
        "kept": _retention(losses),
        "learned": None not in losses,
        "chosen": choice,
        "stopped": stopped,
        "chose": _describe_choice(choice, stopped),
    }


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


def _describe_choice(choice: Mapping[str, Any] | None, stopped: int | None) -> str:
    """Short description of how this run was made."""
    phrases = [] if stopped is None else [f"stopped at step {stopped}"]
    choice = choice or {}
    changed_parts = choice.get("changed")
    if changed_parts is not None:
        layers = all(name.startswith("layer ") for name in changed_parts)
        phrases.append(
            f"without {', '.join(sorted(changed_parts)) or 'nothing'}"
            if layers
            else f"{len(changed_parts)} modules changed"
        )
    if "steering" in choice:
        steering = choice["steering"]
        phrases.append(
            "no strength was found"
            if steering is None
            else f"layer {steering['place']}, strength {steering['strength']:g}"
        )
    return ", ".join(phrases)


def _defense_choice(defense: DefenseArtifacts) -> dict[str, Any] | None:
    """Changed parts of the adapter, or layer and strength of the steering."""
    choice: dict[str, Any] = {}
    if defense.edited_adapter is not None:
        choice["changed"] = _read_json(defense.edited_adapter, "altered.json")["changed"]
    if defense.steering is not None:
        steering_choice = _read_json(defense.steering, "steering.json")["chosen"]
        choice["steering"] = steering_choice and {
            "place": steering_choice["place"],
            "strength": steering_choice["strength"],
        }
    return choice or None


def _read_json(artifact: Artifact, name: str) -> dict[str, Any]:
    return json.loads((artifact.verify().path / name).read_text(encoding="utf-8"))


def defense_costs(record: AuditRecord) -> dict[str, dict[str, Any]]:
    """CPU seconds per run of each defense (`none`: undefended), to make it and to generate its replies.

    Intervals are over runs. The times depend on the machine, so they belong to the provenance and not to the results.
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
        name: {"make": _mean_entry(make_seconds[name]), "ask": _mean_entry(ask_seconds[name])} for name in make_seconds
    }


def _cpu_seconds(artifact: Artifact) -> float:
    return float(artifact.provenance()["cpu_seconds"])


def _mean_entry(values: Sequence[float]) -> dict[str, float | None]:
    mean = mean_runs(values)
    return {"mean": mean.mean, "low": mean.low, "high": mean.high}


def defense_entries(record: AuditRecord, runs: Sequence[Run], defended: Sequence[Run]) -> list[dict[str, Any]]:
    """Entries of the undefended closest arm, then of each defense, for every architecture and axis."""
    study = record.study
    if "closest" not in study.selection.kinds:
        return []
    last_step, rows = study.tuning.save_steps[-1], []
    for family, refs in _models_by_family(study).items():
        family_runs = [run for run in (*runs, *defended) if run["model"] in refs]
        for axis in study.selection.axes:
            rows += [
                {"family": family, **row}
                for row in safety_utility_tradeoff(
                    family_runs, _study_conditions(study), last_step=last_step, axis=axis
                )
            ]
    return [_add_safety(study, row, _undefended_row(rows, row)) for row in rows]


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


def _undefended_row(rows: Sequence[Run], row: Run) -> Run:
    return next(r for r in rows if r["defense"] == "none" and all(r[name] == row[name] for name in ARM_KEYS))


def _add_safety(study: Study, row: dict[str, Any], undefended: Run) -> dict[str, Any]:
    limits = study.safety_limits
    safe = is_safe(row, limits.max_jsr, limits.max_over_refusal)
    return {**row, "safe": safe, "cost": defense_cost(row, undefended) if row["defense"] != "none" else None}


def recommendation_entries(study: Study, rows: Sequence[Run]) -> list[dict[str, Any]]:
    """Recommendation for each undefended arm with a defense."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in ARM_KEYS), []).append(row)
    limits = study.safety_limits
    return [
        {
            **dict(zip(ARM_KEYS, arm_key)),
            **recommend(arm_rows, limits.max_jsr, limits.max_over_refusal),
            "limits": limits.model_dump(),
        }
        for arm_key, arm_rows in groups.items()
        if len(arm_rows) > 1
    ]
