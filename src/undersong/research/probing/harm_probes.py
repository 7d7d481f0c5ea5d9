"""Harmfulness probes of the base and the tuned model, and their change in the form of results.json."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.evaluation.contrast_sets import ContrastSets, JudgedReplies
from undersong.research.mechanism.measurement import MechanismMeasurement, contrast_states
from undersong.research.mechanism.probe_changes import compare_probes
from undersong.research.mechanism.probes import (
    PROBE_SEED,
    harm_probe_decision_values,
    harm_probe_scores,
    nested_harm_probe_scores,
)
from undersong.statistics.bootstrap import Interval
from undersong.statistics.paired import compare_paired

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel
    from undersong.research.mechanism.probe_scores import ProbeScores


def finite_or_none(value: float) -> float | None:
    """Return the value as a float, or None if it is not finite, because JSON has no NaN or infinity."""
    return float(value) if np.isfinite(value) else None


def rows_by_layer(**columns: np.ndarray) -> list[dict[str, Any]]:
    """One entry per layer of the decoder (0 is its input), from arrays (layers + 1,)."""
    length = len(next(iter(columns.values())))
    return [
        {"layer": i, **{name: finite_or_none(values[i]) for name, values in columns.items()}} for i in range(length)
    ]


@dataclass(frozen=True)
class HarmProbes:
    """Results of the harmfulness probes on one model's hidden states.

    `decisions` has shape (layers + 1, held-out prompts). `nested` holds the scores from nested cross-validation on the
    contrast sets, or None if it was not requested.
    """

    decisions: np.ndarray
    nested: ProbeScores | None


def fit_harm_probes(
    model: AudioModel, splits: dict[str, ContrastSets], measured: MechanismMeasurement, permutations: int
) -> HarmProbes | None:
    """Fit harm probes on the fit and choose splits; None if there are too few behaviors.

    Nothing about the probes is chosen by hand, so they may learn from the choose split too.

    Args:
        model: The model that was measured.
        splits: Contrast sets `fit`, `choose` and `test`.
        measured: The model's states on `fit` and `test`.
        permutations: Label permutations of the whole nested cross-validation; 0 to skip it.
    """
    contrast, choose_states = _contrast_prompts(splits).samples, contrast_states(model, splits["choose"])
    harmful, benign = (np.concatenate(pair, axis=1) for pair in zip(measured.fit_states, choose_states))
    states = harmful, benign
    decisions = harm_probe_decision_values(contrast, states, splits["test"].samples, measured.held_out_states)
    if decisions is None:
        return None
    return HarmProbes(decisions, nested_harm_probe_scores(contrast, states, permutations) if permutations else None)


def _contrast_prompts(splits: dict[str, ContrastSets]) -> ContrastSets:
    fit, choose = splits["fit"], splits["choose"]
    return ContrastSets([*fit.harmful, *choose.harmful], [*fit.benign, *choose.benign])


def recognition_results(
    before: HarmProbes,
    after: HarmProbes,
    replies: tuple[JudgedReplies, JudgedReplies],
    splits: dict[str, ContrastSets],
    margin: float,
) -> dict[str, Any]:
    """Compare the harm probes before and after tuning, together with the change of the refusal rate.

    Args:
        before: Probes of the base model.
        after: Probes of the tuned model.
        replies: Judged replies of the base and of the tuned model to the held-out prompts.
        splits: Contrast sets by name; scores are on `test`.
        margin: Largest loss of balanced accuracy, as a share, that still counts as equivalent.
    """
    test = splits["test"]
    scores = [
        harm_probe_scores(harm_probes.decisions, _contrast_prompts(splits).samples, test.samples)
        for harm_probes in (before, after)
    ]
    change, refusal_change = compare_probes(scores[0], scores[1], margin, PROBE_SEED), _refusal_change(replies, test)
    results: dict[str, Any] = {
        "before": finite_or_none(change.before),
        "after": finite_or_none(change.after),
        "before_p": finite_or_none(change.before_p),
        "after_p": finite_or_none(change.after_p),
        "change": _interval_entry(change.change),
        "refusals": _interval_entry(refusal_change),
        "margin": margin,
        "outcome": change.outcome,
        "dissociated": change.is_dissociated(refusal_change),
        "sentence": change.sentence(refusal_change),
    }
    results["by_layer"] = rows_by_layer(**_score_columns(scores[0], "before"), **_score_columns(scores[1], "after"))
    if before.nested is not None and after.nested is not None:
        results["nested"] = rows_by_layer(
            **_score_columns(before.nested, "before"), **_score_columns(after.nested, "after")
        )
    return results


def _refusal_change(replies: tuple[JudgedReplies, JudgedReplies], test: ContrastSets) -> Interval:
    """Change of the refusal rate on harmful prompts."""
    refused_before, refused_after = (judged_replies.refused[: len(test.harmful)] for judged_replies in replies)
    comparison = compare_paired(refused_before, refused_after, test.clusters[0])
    return Interval(comparison.difference, comparison.clustered_low, comparison.clustered_high)


def _score_columns(scores: ProbeScores, stage: str) -> dict[str, np.ndarray]:
    names = {"balanced_accuracy": "accuracy", "low": "low", "high": "high", "auc": "auc", "p_holm": "p"}
    return {f"{name}_{stage}": getattr(scores, column) for column, name in names.items()}


def _interval_entry(estimate: Interval) -> dict[str, float | None]:
    return {"value": finite_or_none(estimate.value), "low": estimate.low, "high": estimate.high}
