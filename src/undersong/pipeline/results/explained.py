"""The mechanism part of results.json: refusal gap by layer before and after, and whether the encoder stayed the same.

Knows projection artefacts; the numbers are made in the mechanism room.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.mechanism.matched import mismatches
from undersong.mechanism.recognition import recognition_decided, recognition_told
from undersong.pipeline.records import AuditRecord
from undersong.pipeline.results.recognition import Known, recognition
from undersong.pipeline.results.suppression import Change, suppression
from undersong.pipeline.stages import Arm
from undersong.store import Artefact

if TYPE_CHECKING:
    from undersong.mechanism.probe_scores import Told

BOOTSTRAP_SEED = 0

Projections = dict[str, np.ndarray]
Clusters = tuple[list[str], list[str]]  # of the harmful and the harmless held-out prompts


def mechanism_entry(record: AuditRecord, runs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """None where the study asks for no mechanism; `runs`: those of results.json, whose JSR goes beside the gaps."""
    contrast = record.study.mechanism
    if contrast is None:
        return None

    def clusters_of(name: str) -> list[str]:
        return [sample.cluster for sample in record.sets[name].samples]

    held_out = contrast.held_out_harmful, contrast.held_out_harmless
    clusters = clusters_of(held_out[0]), clusters_of(held_out[1])
    tested = record.sets[held_out[0]].samples, record.sets[held_out[1]].samples
    fitted = record.contrast["harmful"].samples, record.contrast["harmless"].samples
    curves, late, changes, layers = [], [], [], 0
    known: list[Known] = []
    last = record.study.tuning.steps[-1]
    for model in record.models:
        before = {m: _load(a) for arm, _, m, a in model.projections if arm.kind == "base"}
        for arm, step, modality, artefact in model.projections:
            after = _load(artefact)
            layers = after["harmful"].shape[0] - 1
            told = recognition_told(after["recognised"], tested) if "recognised" in after else None
            if told is not None:
                decided = recognition_decided(after["recognised"], fitted, tested)
                known.append(Known(arm, modality, told, _run(runs, arm, step), decided))
            curves += _curve(arm, step, modality, after, before[modality], clusters, told)
            if arm.kind != "base":
                late.append(_late(arm, modality, before[modality], after, clusters))
                if step == last and late[-1]["gap_change"] is not None:
                    changes.append(Change(arm, modality, late[-1]["gap_change"]))
    return {
        "layers": layers,
        "contrast": {
            "fitted_on": [contrast.harmful, contrast.harmless],
            "harm_n": len(fitted[0]),
            "benign_n": len(fitted[1]),
            "held_out_harm_n": len(tested[0]),
            "held_out_benign_n": len(tested[1]),
            "unmatched": [
                *mismatches(*fitted, "the contrast sets"),
                *mismatches(*tested, "the held-out sets"),
            ],
            "note": "Directions are fitted on the base model's contrast sets; every figure is of held-out prompts.",
        },
        "encoder": _encoder(record),
        "curves": curves,
        "late": late,
        **suppression(changes, runs, contrast.held_out_harmful, record.study.plain, last),
        "recognition": recognition(known, contrast.held_out_harmful, record.study.plain),
        "note": "Layer 0 is the decoder's input. A shift common to harmful and harmless prompts moves both projections "
        "and not the gap.",
    }


def _load(artefact: Artefact) -> Projections:
    from safetensors.numpy import load_file

    return load_file(artefact.path / "projections.safetensors")


def _run(runs: Sequence[Mapping[str, Any]], arm: Arm, step: int) -> Mapping[str, Any]:
    """The entry of a run in results.json."""
    key = (arm.model, arm.name, arm.seed, arm.draw, step)
    return next(run for run in runs if tuple(run[n] for n in ("model", "arm", "seed", "draw", "step")) == key)


def _curve(
    arm: Arm,
    step: int,
    modality: str,
    after: Projections,
    before: Projections,
    clusters: Clusters,
    told: Told | None,
) -> list[dict[str, Any]]:
    from undersong.mechanism import gap_curve

    rng = np.random.default_rng(BOOTSTRAP_SEED)
    now, was = (gap_curve(p["harmful"], p["harmless"], clusters[0], clusters[1], rng) for p in (after, before))
    return [
        {
            "arm": arm.name,
            "model": arm.model,
            "seed": arm.seed,
            "step": step,
            "modality": modality,
            "layer": layer,
            "projection_harm": _number(now.harmful[layer]),
            "projection_benign": _number(now.harmless[layer]),
            "gap": _number(now.gap[layer]),
            "gap_low": _number(now.low[layer]),
            "gap_high": _number(now.high[layer]),
            "gap_before": _number(was.gap[layer]),
            "cosine_to_refit": _number(after["cosine"][layer]),
            "recognised": None if told is None else _number(told.balanced_accuracy[layer]),
            **{name: _number(after[name][layer]) for name in ("drift", "drift_low", "drift_high", "cka")},
        }
        for layer in range(len(now.gap))
    ]


def _number(value: float) -> float | None:
    """JSON knows no NaN: a layer without a direction has no number."""
    return float(value) if np.isfinite(value) else None


def _late(arm: Arm, modality: str, before: Projections, after: Projections, clusters: Clusters) -> dict[str, Any]:
    from undersong.mechanism import late_change, late_p

    sides = [(p["harmful"], p["harmless"]) for p in (before, after)]
    change, low, high = late_change(sides[0], sides[1], clusters, np.random.default_rng(BOOTSTRAP_SEED))
    facts = {"arm": arm.name, "model": arm.model, "seed": arm.seed, "modality": modality}
    p = late_p((after["harmful"] - before["harmful"], after["harmless"] - before["harmless"]), clusters)
    return {**facts, "gap_change": _number(change), "low": _number(low), "high": _number(high), "p": _number(p)}


def _encoder(record: AuditRecord) -> dict[str, Any] | None:
    """Hashes before and after every training, and the largest difference of what is heard with and without adapter."""
    adapters = {run.adapter.hash: run.adapter for m in record.models for run in m.runs if run.adapter is not None}
    guarded = [run.defense.trained for m in record.models for run in m.defended if run.defense is not None]
    adapters |= {trained.hash: trained for trained in guarded}
    notes = [adapter.provenance()["notes"] for adapter in adapters.values()]
    if not notes:
        return None

    def equal(kind: str) -> bool:
        return all(
            note["frozen_before"][name] == note["frozen_after"][name]
            for note in notes
            for name in note["frozen_before"]
            if name.endswith(kind)
        )

    found = [_load(artefact) for m in record.models for _, _, _, artefact in m.projections]
    return {
        "parameters_equal": equal("/parameters"),
        "buffers_equal": equal("/buffers"),
        "output_max_abs_difference": max(float(one["encoder_difference"][0]) for one in found),
        "input_max_abs_difference": max(float(one["input_difference"][0]) for one in found),
        "trainings": len(notes),
    }
