"""Results of the organisms' studies made up from rates that a test chooses, in the form that the pipeline writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from results_factory import make_provenance, make_rate, make_results, make_run

from experiments.paper.designs import FILES, Design
from undersong.study.arm_selection import arm_rules
from undersong.study.schema import Study

# (organism, facts of the run and of what it was asked) -> rate of what is counted, in prompts of 108
Rate = Callable[[str, Mapping[str, Any]], int]
PROMPTS, CLUSTERS = 108, 36


def write(
    design: Design, folder: Path, rate: Rate, files: tuple[str, ...] = FILES, **changes: Any
) -> dict[str, dict[str, Any]]:
    """Study -> its results, which lie in `folder` too; `changes`: of what a mechanism study found."""
    out = {}
    for study in (study for file in files for study in design.studies(file)):
        out[study.study] = results_of(study, rate, **changes)
        file = folder / study.study / "results.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(out[study.study]))
    return out


def results_of(
    study: Study,
    rate: Rate,
    late: float = -0.5,
    equal: bool = True,
    known: str = "retained",
    n_layers: int = 8,
    contrast: float | None = None,
) -> dict[str, Any]:
    runs = [_run(study, rate, {"model": ref, "base_seed": i, "kind": "base"}) for i, ref in enumerate(study.models)]
    tuning = study.tuning
    for base, ref in enumerate(study.models):
        for rule in arm_rules(study):
            for trained in tuning.modalities:
                for seed, draw in zip(tuning.seeds, tuning.draws):
                    for step in tuning.save_steps:
                        facts = {"model": ref, "base_seed": base, "kind": rule.name, "axis": rule.axis, "step": step}
                        facts |= {
                            "fraction": rule.selection_rule.amount,
                            "train_modality": trained,
                            "seed": seed,
                            "draw": draw,
                        }
                        runs.append(_run(study, rate, facts))
    named = {"name": study.study, "config": study.model_dump(mode="json"), "steps": [0, *tuning.save_steps]}
    mechanism = (
        None
        if study.mechanism is None
        else _mechanism(runs, late, equal, known, n_layers, late / 2 if contrast is None else contrast)
    )
    made = make_provenance(created="2026-11-27T10:00:00Z", undersong="0", result_hash="abc" * 20)
    return make_results(runs, study=named, mechanism=mechanism, provenance=made)


def _run(study: Study, rate: Rate, facts: dict[str, Any]) -> dict[str, Any]:
    none = {"axis": None, "fraction": None, "train_modality": None, "seed": None, "draw": None, "step": 0}
    run = none | facts
    arm = "/".join(str(run[name]) for name in ("axis", "kind", "fraction", "train_modality"))
    said = {
        "pool noise": study.selection.noise,
        "target": study.tuning.target_column,
        "rate": study.tuning.learning_rate,
    }
    organism = Path(run["model"].removeprefix("organism:")).name.partition("-")[0]
    rates = [
        _entry(name, one.harmful, modality, system, rate, organism, {**run, "arm": arm, **said})
        for name, one in study.prompt_sets.items()
        for modality in study.evaluation.modalities
        for system in study.evaluation.system_prompts
    ]
    return make_run("base" if run["kind"] == "base" else arm, rates, **run)


def _entry(
    name: str, harmful: bool, modality: str, system: str, rate: Rate, organism: str, run: Mapping[str, Any]
) -> dict[str, Any]:
    asked = {"harmful": harmful, "modality": modality, "system": system}
    hits = rate(organism, {**run, "set": name, **asked}) / PROMPTS
    low, high = max(0.0, hits - 0.1), min(1.0, hits + 0.1)
    if harmful:
        return make_rate(hits, name, n=PROMPTS, clusters=CLUSTERS, low=low, high=high, **asked)
    right = {"correct": hits, "correct_low": low, "correct_high": high}
    return make_rate(1 - hits, name, n=48, clusters=24, low=0.0, high=1.0, **right, **asked)


def _mechanism(
    runs: list[dict[str, Any]], late: float, equal: bool, known: str, n_layers: int, contrast: float
) -> dict[str, Any]:
    """The gap changes by `late` in late layers, and by `contrast` less than that in early ones."""
    tuned = [run for run in runs if run["kind"] != "base" and run["step"] == 40]
    changes = [
        {
            "model": r["model"],
            "arm": r["arm"],
            "seed": r["seed"],
            "modality": m,
            "gap_change": late + 0.01 * r["seed"],
            "late_minus_early": None if n_layers < 6 else contrast + 0.01 * r["seed"],
        }
        for r in tuned
        for m in ("audio", "text")
    ]
    place = {"kind": "closest", "train_modality": "audio", "modality": "audio"}
    probed = {"n": 3, "before": 0.9, "before_p": 0.01, "after": 0.9, "after_p": 0.01}
    noise = 0.0001 * tuned[0]["seed"]
    probed |= {"change": noise, "refusal_rate_change": -0.5 - noise}
    probed |= {"interval_over": "runs", "equivalence_margin": 0.1, "finding": "Found."}
    models = dict.fromkeys(run["model"] for run in tuned)
    said = [{**place, **probed, "model": m, "outcome": known, "dissociated": known == "retained"} for m in models]
    layers = [
        {
            "arm": r["arm"], "model": r["model"], "seed": r["seed"], "step": r["step"], "modality": "audio",
            "layer": layer, "gap": 2.0 + late, "gap_before": 2.0, "harm_accuracy": 0.9,
        }
        for r in tuned
        for layer in range(n_layers + 1)
    ]  # fmt: skip
    encoder = {"parameters_equal": equal, "buffers_equal": True, "trainings": len(tuned)}
    encoder |= {"output_max_abs_difference": 0.0, "input_max_abs_difference": 0.0}
    contrast = {"fitted_on": {"harmful": "h", "benign": "b"}, "n_harmful": 1, "n_benign": 1}
    contrast |= {"n_held_out_harmful": 1, "n_held_out_benign": 1}
    return {"n_layers": n_layers, "contrast_sets": contrast, "late_gap_changes": changes, "harm_recognition": said,
            "encoder_unchanged": encoder, "layer_measurements": layers}  # fmt: skip
