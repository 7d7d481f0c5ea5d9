"""Mechanism entry of results.json: refusal gap by layer before and after tuning, and whether the audio encoder is
unchanged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from undersong.evaluation.contrast_sets import contrast_mismatches
from undersong.research.mechanism.probes import harm_probe_decisions, harm_probe_point_scores
from undersong.research.results.harm_recognition import ProbedRun, harm_recognition_records
from undersong.research.results.mechanism_tests import GapChange, GapTests
from undersong.results.schema import RunResult
from undersong.results.schema_mechanism import (
    ContrastNames,
    ContrastRecord,
    FrozenEncoderCheck,
    LateGapChange,
    LayerMeasurement,
    MechanismRecord,
)
from undersong.stages.training import StudyArm
from undersong.store.store import Artifact
from undersong.study.results.records import AuditRecord

if TYPE_CHECKING:
    from undersong.research.mechanism.probe_scores import PointScores

BOOTSTRAP_SEED = 0

ProjectionTensors = dict[str, np.ndarray]
PromptClusters = tuple[list[str], list[str]]  # of the harmful and the benign held-out prompts


def mechanism_record(record: AuditRecord, runs: Sequence[RunResult]) -> MechanismRecord | None:
    """Compute the mechanism analysis; None if the study has none.

    Args:
        record: Record of the audit.
        runs: Runs whose JSR is compared with the gaps.
    """
    contrast = record.study.mechanism
    if contrast is None:
        return None

    def clusters_of(name: str) -> list[str]:
        return [sample.cluster for sample in record.sets[name].samples]

    held_out = contrast.held_out_harmful, contrast.held_out_benign
    clusters = clusters_of(held_out[0]), clusters_of(held_out[1])
    held_out_samples = record.sets[held_out[0]].samples, record.sets[held_out[1]].samples
    fit_samples = record.contrast_corpora["harmful"].samples, record.contrast_corpora["benign"].samples
    measurements: list[LayerMeasurement] = []
    late_changes: list[LateGapChange] = []
    gap_changes: list[GapChange] = []
    layers = 0
    probed_runs: list[ProbedRun] = []
    last_step = record.study.tuning.save_steps[-1]
    for model in record.models:
        base_projections = {m: _load_projections(a) for arm, _, m, a in model.projections if arm.kind == "base"}
        for arm, step, modality, artifact in model.projections:
            projections = _load_projections(artifact)
            layers = projections["harmful"].shape[0] - 1
            probe_scores = (
                harm_probe_point_scores(projections["harm_decisions"], held_out_samples)
                if "harm_decisions" in projections
                else None
            )
            if probe_scores is not None:
                decisions = harm_probe_decisions(projections["harm_decisions"], fit_samples, held_out_samples)
                probed_runs.append(ProbedRun(arm, modality, probe_scores, _find_run(runs, arm, step), decisions))
            measurements += _layer_measurements(
                arm, step, modality, projections, base_projections[modality], clusters, probe_scores
            )
            if arm.kind != "base":
                change = _late_gap_change(arm, modality, base_projections[modality], projections, clusters)
                late_changes.append(change)
                if step == last_step and change.gap_change is not None:
                    gap_changes.append(GapChange(arm, modality, change.gap_change, change.late_minus_early))
    system = record.study.undefended_system
    gap_tests = GapTests(gap_changes, runs, contrast.held_out_harmful, system, last_step)
    return MechanismRecord(
        n_layers=layers,
        contrast_sets=ContrastRecord(
            fitted_on=ContrastNames(harmful=contrast.contrast_harmful, benign=contrast.contrast_benign),
            n_harmful=len(fit_samples[0]),
            n_benign=len(fit_samples[1]),
            n_held_out_harmful=len(held_out_samples[0]),
            n_held_out_benign=len(held_out_samples[1]),
            mismatches=[
                *contrast_mismatches(*fit_samples, "the contrast sets"),
                *contrast_mismatches(*held_out_samples, "the held-out sets"),
            ],
            note="Directions are fitted on the base model's contrast sets; every figure is of held-out prompts.",
        ),
        encoder_unchanged=_encoder_check(record),
        layer_measurements=measurements,
        late_gap_changes=late_changes,
        late_gap_comparisons=gap_tests.comparisons(),
        late_gap_by_modality=gap_tests.changes_by_modality(),
        late_suppression=gap_tests.late_suppression(layers),
        modality_asymmetry=gap_tests.asymmetries(),
        gap_vs_jsr=gap_tests.gap_vs_jsr(),
        harm_recognition=harm_recognition_records(probed_runs, contrast.held_out_harmful, system),
        note="Layer 0 is the decoder's input. A shift common to harmful and benign prompts moves both projections "
        f"and not the gap.{_shallow_sentence(layers)}",
    )


def _shallow_sentence(layers: int) -> str:
    from undersong.research.mechanism.directions import MIN_CONTRAST_LAYERS

    if layers >= MIN_CONTRAST_LAYERS:
        return ""
    return (
        f" The decoder has {layers} layers, and late layers are told from early ones only with {MIN_CONTRAST_LAYERS} "
        "or more, so these results cannot show that a suppression is late."
    )


def _load_projections(artifact: Artifact) -> ProjectionTensors:
    from safetensors.numpy import load_file

    return load_file(artifact.path / "projections.safetensors")


def _find_run(runs: Sequence[RunResult], arm: StudyArm, step: int) -> RunResult:
    key = (arm.model, arm.name, arm.seed, arm.draw, step)
    return next(run for run in runs if (run.model, run.arm, run.seed, run.draw, run.step) == key)


def _layer_measurements(
    arm: StudyArm,
    step: int,
    modality: str,
    after: ProjectionTensors,
    before: ProjectionTensors,
    clusters: PromptClusters,
    probe_scores: PointScores | None,
) -> list[LayerMeasurement]:
    from undersong.research.mechanism.directions import gap_curve

    rng = np.random.default_rng(BOOTSTRAP_SEED)
    gap_after, gap_before = (
        gap_curve(p["harmful"], p["benign"], clusters[0], clusters[1], rng) for p in (after, before)
    )
    return [
        LayerMeasurement(
            arm=arm.name,
            model=arm.model,
            seed=arm.seed,
            step=step,
            modality=modality,
            layer=layer,
            projection_harmful=_finite_or_none(gap_after.harmful[layer]),
            projection_benign=_finite_or_none(gap_after.benign[layer]),
            gap=_finite_or_none(gap_after.gap[layer]),
            gap_low=_finite_or_none(gap_after.low[layer]),
            gap_high=_finite_or_none(gap_after.high[layer]),
            gap_before=_finite_or_none(gap_before.gap[layer]),
            cosine_to_refit=_finite_or_none(after["cosine"][layer]),
            harm_accuracy=None if probe_scores is None else _finite_or_none(probe_scores.balanced_accuracy[layer]),
            **{name: _finite_or_none(after[name][layer]) for name in ("drift", "drift_low", "drift_high", "cka")},
        )
        for layer in range(len(gap_after.gap))
    ]


def _finite_or_none(value: float) -> float | None:
    """JSON knows no NaN: a layer without a direction has no number."""
    return float(value) if np.isfinite(value) else None


def _late_gap_change(
    arm: StudyArm, modality: str, before: ProjectionTensors, after: ProjectionTensors, clusters: PromptClusters
) -> LateGapChange:
    from undersong.research.mechanism.directions import late_gap_change, late_gap_p_value, late_minus_early

    projection_pairs = [(p["harmful"], p["benign"]) for p in (before, after)]
    change, low, high = late_gap_change(
        projection_pairs[0], projection_pairs[1], clusters, np.random.default_rng(BOOTSTRAP_SEED)
    )
    p = late_gap_p_value((after["harmful"] - before["harmful"], after["benign"] - before["benign"]), clusters)
    contrast = late_minus_early(
        projection_pairs[0], projection_pairs[1], clusters, np.random.default_rng(BOOTSTRAP_SEED)
    )
    assert arm.seed is not None, "the base is not tuned"
    return LateGapChange(
        arm=arm.name,
        model=arm.model,
        seed=arm.seed,
        modality=modality,
        gap_change=_finite_or_none(change),
        low=_finite_or_none(low),
        high=_finite_or_none(high),
        p=_finite_or_none(p),
        late_minus_early=None if contrast is None else _finite_or_none(contrast.difference),
        late_minus_early_low=None if contrast is None else _finite_or_none(contrast.low),
        late_minus_early_high=None if contrast is None else _finite_or_none(contrast.high),
        late_minus_early_p=None if contrast is None else _finite_or_none(contrast.p_value),
    )


def _encoder_check(record: AuditRecord) -> FrozenEncoderCheck | None:
    """Compare hashes before and after every training, and the encoder's output with and without adapter."""
    adapters = {run.adapter.hash: run.adapter for m in record.models for run in m.runs if run.adapter is not None}
    defense_adapters = [
        run.defense.trained_adapter for m in record.models for run in m.defended_runs if run.defense is not None
    ]
    adapters |= {trained.hash: trained for trained in defense_adapters}
    notes = [adapter.provenance()["notes"] for adapter in adapters.values()]
    if not notes:
        return None

    def is_unchanged(kind: str) -> bool:
        return all(
            note["frozen_before"][name] == note["frozen_after"][name]
            for note in notes
            for name in note["frozen_before"]
            if name.endswith(kind)
        )

    projections = [_load_projections(artifact) for m in record.models for _, _, _, artifact in m.projections]
    return FrozenEncoderCheck(
        parameters_equal=is_unchanged("/parameters"),
        buffers_equal=is_unchanged("/buffers"),
        output_max_abs_difference=max(float(tensors["encoder_difference"][0]) for tensors in projections),
        input_max_abs_difference=max(float(tensors["input_difference"][0]) for tensors in projections),
        trainings=len(notes),
    )
