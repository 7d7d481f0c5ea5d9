"""What defenses are worth: `defenses` and `recommended` of results.json, one table an architecture.

Knows runs, undefended and defended, and what the artefacts of a defense say of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from undersong.defenses import PLACE, Defense, cost_of, is_safe, price, recommend
from undersong.pipeline.records import AuditRecord, Defended, RunRecord
from undersong.pipeline.speakers import answers_only
from undersong.statistics import mean_runs
from undersong.store import Artefact
from undersong.study import Study

Run = Mapping[str, Any]
TAUGHT = 0.05  # nats a token of the replies


def defense_facts(run: RunRecord) -> dict[str, Any]:
    """Of a defended run: what was changed, what was chosen, and the share of what the tuning taught that is kept."""
    done = run.defense
    assert done is not None
    losses = [_read(found, "learned.json")["loss"] for found in done.losses]
    named = dict(zip(("base", "undefended", "defended"), losses))
    chosen, stopped = _chosen(done), done.trained.provenance()["notes"].get("stopped")
    return {
        "defense": done.name,
        "changes": list(done.changes),
        "again": done.again,
        "losses": named,
        "kept": _kept(losses),
        "learned": None not in losses,
        "chosen": chosen,
        "stopped": stopped,
        "chose": _in_words(chosen, stopped),
    }


def _kept(losses: Sequence[float | None]) -> float | None:
    """(base - defended) / (base - undefended): 1 as learned without a defense, 0 as before.

    None where it was not measured, or the tuning taught next to nothing, so that the share would be of noise; 0 where
    it taught nothing and the replies got worse than the base's.
    """
    if not losses or None in losses:
        return None
    base, undefended, defended = (float(loss) for loss in losses if loss is not None)
    if base - undefended < TAUGHT:
        return 0.0 if defended - base > TAUGHT else None  # nothing was taught, and this may still unteach
    return (base - defended) / (base - undefended)


def _in_words(chosen: Mapping[str, Any] | None, stopped: int | None) -> str:
    """What a reader must know of how this run was made."""
    said = [] if stopped is None else [f"stopped at step {stopped}"]
    chosen = chosen or {}
    changed = chosen.get("changed")
    if changed is not None:
        layers = all(name.startswith("layer ") for name in changed)
        said.append(
            f"without {', '.join(sorted(changed)) or 'nothing'}" if layers else f"{len(changed)} modules changed"
        )
    if "steering" in chosen:
        one = chosen["steering"]
        said.append("no strength was found" if one is None else f"layer {one['place']}, strength {one['strength']:g}")
    return ", ".join(said)


def _chosen(done: Defended) -> dict[str, Any] | None:
    """Which parts of the adapter were changed, or where and how strongly it is steered."""
    found: dict[str, Any] = {}
    if done.altered is not None:
        found["changed"] = _read(done.altered, "altered.json")["changed"]
    if done.steering is not None:
        chosen = _read(done.steering, "steering.json")["chosen"]
        found["steering"] = chosen and {"place": chosen["place"], "strength": chosen["strength"]}
    return found or None


def _read(found: Artefact, name: str) -> dict[str, Any]:
    return json.loads((found.checked().path / name).read_text(encoding="utf-8"))


def defense_costs(record: AuditRecord) -> dict[str, dict[str, Any]]:
    """Name (`none`: undefended) -> CPU seconds a run to make it (training, and what is chosen or changed after) and to
    ask it, with intervals over runs.  Of the machine that made them, so no result: they stand in the provenance."""
    last = record.study.tuning.steps[-1]
    made: dict[str, list[float]] = {}
    asked: dict[str, list[float]] = {}
    for model in record.models:
        undefended = [run for run in model.runs if (run.arm.kind, run.arm.rule, run.step) == ("closest", "", last)]
        for run in (*undefended, *(run for run in model.defended if run.defense and not run.defense.again)):
            done = run.defense
            name = done.name if done else "none"
            parts = (done.trained, done.altered, done.steering) if done else (run.adapter,)
            made.setdefault(name, []).append(sum(_seconds(part) for part in parts if part is not None))
            asked.setdefault(name, []).append(_seconds(run.replies))
    return {name: {"make": _over_runs(made[name]), "ask": _over_runs(asked[name])} for name in made}


def _seconds(found: Artefact) -> float:
    return float(found.provenance()["cpu_seconds"])


def _over_runs(values: Sequence[float]) -> dict[str, float | None]:
    found = mean_runs(values)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def defense_entries(record: AuditRecord, runs: Sequence[Run], defended: Sequence[Run]) -> list[dict[str, Any]]:
    """The undefended closest arm, then each defense; one block an architecture and axis."""
    study = record.study
    if "closest" not in study.selection.kinds:
        return []
    last, rows = study.tuning.steps[-1], []
    for family, refs in _families(study).items():
        mine = [run for run in (*runs, *defended) if run["model"] in refs]
        for axis in study.selection.axes:
            rows += [{"family": family, **row} for row in price(mine, _conditions(study), last_step=last, axis=axis)]
    return [_judged(study, row, _without(rows, row)) for row in rows]


def _conditions(study: Study) -> list[Defense]:
    """Those that any study has by its arms and system texts, where it does not name its own; then its own."""
    found = [Defense("none", "closest", study.plain)]
    if "distant" in study.selection.kinds and not study.defenses:
        found.append(Defense("distant data", "distant", study.plain))
    if study.system_defense is not None and not study.defenses:
        found.append(Defense("system prompt", "closest", study.system_defense))
    own = study.defenses.items()
    return [*found, *(Defense(name, "closest", one.system or study.plain, one.changes) for name, one in own)]


def _families(study: Study) -> dict[str | None, list[str]]:
    from undersong.models.identify import identify

    found: dict[str | None, list[str]] = {}
    for ref in study.models:
        found.setdefault(None if answers_only(ref) else identify(ref)[2].name, []).append(ref)
    return found


def _without(rows: Sequence[Run], row: Run) -> Run:
    return next(r for r in rows if r["defense"] == "none" and all(r[name] == row[name] for name in PLACE))


def _judged(study: Study, row: dict[str, Any], without: Run) -> dict[str, Any]:
    limits = study.acceptable
    safe = is_safe(row, limits.jsr, limits.over_refusal)
    return {**row, "safe": safe, "cost": cost_of(row, without) if row["defense"] != "none" else None}


def recommended_entries(study: Study, rows: Sequence[Run]) -> list[dict[str, Any]]:
    """One an undefended arm that something was tried against."""
    groups: dict[tuple[Any, ...], list[Run]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in PLACE), []).append(row)
    limits = study.acceptable
    return [
        {**dict(zip(PLACE, place)), **recommend(mine, limits.jsr, limits.over_refusal), "limits": limits.model_dump()}
        for place, mine in groups.items()
        if len(mine) > 1
    ]
