"""Measurements of the base model: its refusal direction, the tokens its refusals begin with, and an ablation test of
the direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from undersong.evaluation.contrast_sets import ContrastSets, JudgedReplies, ReplyEvaluator
from undersong.models.interventions import apply_interventions
from undersong.predictors.refusal_score import first_tokens, refusal_scores, refusal_tokens
from undersong.research.mechanism.direction_selection import (
    ablate_direction,
    evaluate_candidates,
    random_direction_p_value,
    random_directions,
    select_direction,
)
from undersong.research.mechanism.directions import RefusalDirection, late_gap_p_value
from undersong.research.mechanism.measurement import MechanismMeasurement, measure_mechanism
from undersong.research.probing.harm_probes import HarmProbes, finite_or_none, fit_harm_probes
from undersong.research.probing.options import ProbeOptions
from undersong.settings.defaults import MAX_DEPTH, MAX_KL
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

SIGNIFICANCE_LEVEL = 0.05


@dataclass
class BaseMeasurements:
    """Measurements of the base model, with which the tuned model is compared.

    `layer` is the layer of the refusal direction; None if the direction was not shown to cause refusals.
    """

    mechanism: MechanismMeasurement
    replies: JudgedReplies  # to the held-out prompts, harmful first
    separation_p_value: float  # p
    harm_probes: HarmProbes | None
    refusal_tokens: list[int] | None = None
    refusal_scores: np.ndarray | None = None  # of held-out harmful prompts
    layer: int | None = None
    results: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def measure_base_model(
    model: AudioModel, splits: dict[str, ContrastSets], evaluator: ReplyEvaluator, options: ProbeOptions
) -> BaseMeasurements:
    """Measure the refusal direction of the base model, its replies, and whether the direction causes refusals.

    Args:
        model: The base model.
        splits: Contrast sets by name: `fit` for directions, `choose` for the layer, `test` for the reported numbers.
        evaluator: Generates replies and judges them.
        options: Options of the probe.
    """
    fit, test = splits["fit"], splits["test"]
    mechanism = measure_mechanism(model, fit, test)
    harmful, benign = (mechanism.direction.project(states) for states in mechanism.held_out_states)
    measurements = BaseMeasurements(
        mechanism,
        evaluator.evaluate(model, test.all_prompts),
        late_gap_p_value((harmful, benign), test.clusters),
        fit_harm_probes(model, splits, mechanism, options.nested_permutations),
    )
    measurements.results["reply_rates"] = rates_by_kind(measurements.replies, len(test.harmful))
    measurements.results["separation_p"] = finite_or_none(measurements.separation_p_value)
    if not measurements.separation_p_value < SIGNIFICANCE_LEVEL:
        measurements.notes.append(
            f"Harmful and benign prompts lie no further apart along the fitted direction than by chance (p = "
            f"{measurements.separation_p_value:.2f}), so there is no direction to follow, and layers are not ranked."
        )
        return measurements
    try:
        measurements.refusal_tokens = refusal_tokens(
            first_tokens(model, fit.all_prompts), evaluator.evaluate(model, fit.all_prompts).refused
        )
    except UndersongError as error:
        measurements.notes.append(f"{error}  Patching, parts and causes, which go by the first token, were left out.")
        return measurements
    measurements.results["refusals_begin_with"] = [
        model.tokenizer.decode([token]) for token in measurements.refusal_tokens
    ]
    measurements.refusal_scores = refusal_scores(model, test.harmful, measurements.refusal_tokens)
    _test_causality(measurements, measurements.refusal_tokens, model, splits, evaluator, options)
    return measurements


def _test_causality(
    measurements: BaseMeasurements,
    tokens: Sequence[int],
    model: AudioModel,
    splits: dict[str, ContrastSets],
    evaluator: ReplyEvaluator,
    options: ProbeOptions,
) -> None:
    """The layer, and what happens to held-out prompts without its direction."""
    choose, test = splits["choose"], splits["test"]
    layer_candidates = evaluate_candidates(
        model, measurements.mechanism.direction, choose.harmful, choose.benign, tokens
    )
    measurements.results["candidates"] = [asdict(candidate) for candidate in layer_candidates]
    measurements.layer = select_direction(layer_candidates, model.layers, options.max_kl, options.max_depth)
    if measurements.layer is None:
        measurements.notes.append(
            "No layer's direction induces refusal where it is put in and hardly touches benign prompts where it is "
            "taken out, so none is called the cause."
        )
        return
    if options.max_kl > MAX_KL or options.max_depth > MAX_DEPTH:
        measurements.notes.append(
            f"The layer was chosen with limits of {options.max_kl:g} nats and {options.max_depth:g} of the layers, "
            f"looser than the published {MAX_KL:g} and {MAX_DEPTH:g}, so its p value confirms nothing."
        )
    scores_before, layer = refusal_scores(model, test.harmful, tokens), measurements.layer

    def score_drop(direction: RefusalDirection) -> float:
        scores_after = refusal_scores(model, test.harmful, tokens, ablate_direction(direction, layer, model.layers))
        return float((scores_before - scores_after).mean())

    effect = score_drop(measurements.mechanism.direction)
    controls = random_directions(
        measurements.mechanism.direction,
        measurements.mechanism.fit_states,
        splits["fit"].clusters,
        options.random_directions,
        options.seed,
    )
    control_effects = [score_drop(control) for control in controls]

    def ablated() -> AbstractContextManager[None]:
        return apply_interventions(
            model.decoder.layers, ablate_direction(measurements.mechanism.direction, layer, model.layers)([])
        )

    replies = evaluator.evaluate(model, test.all_prompts, ablated())
    measurements.results["ablation"] = {
        "layer": layer,
        "refusal_score_drop": effect,
        "random_refusal_score_drops": control_effects,
        "p": random_direction_p_value(effect, control_effects),
        "reply_rates": rates_by_kind(replies, len(test.harmful)),
        "loss": benign_reply_losses(model, measurements, test, ablated),
    }


def benign_reply_losses(
    model: AudioModel,
    base: BaseMeasurements,
    test_prompts: ContrastSets,
    intervention: Callable[[], AbstractContextManager[None]],
) -> dict[str, float]:
    """Return the mean loss per token of the base's replies to benign prompts, before and after an intervention.

    The exponential of a loss is the perplexity. Empty replies are left out.

    Args:
        model: Model that computes the losses.
        base: Measurements with the base's replies to the held-out prompts, harmful prompts first.
        test_prompts: Held-out contrast sets, in the order of these replies.
        intervention: Factory of a context manager that changes the decoder for the second loss.
    """
    from undersong.tuning.validation import mean_loss

    replies = [reply.reply for reply in base.replies.replies[len(test_prompts.harmful) :]]
    answered = [(prompt, reply) for prompt, reply in zip(test_prompts.benign, replies) if reply]
    prompts, reply_texts = [prompt for prompt, _ in answered], [reply for _, reply in answered]
    loss_before = mean_loss(model, prompts, reply_texts, 32)
    with intervention():
        return {"before": loss_before, "after": mean_loss(model, prompts, reply_texts, 32)}


RATE_FIELDS_LEFT_OUT = {"by_voice", "system", "judge_criterion"}  # the same for all, or not of interest


def rates_by_kind(replies: JudgedReplies, harmful_count: int) -> dict[str, Any]:
    """Return the rates on harmful and on benign prompts; the first `harmful_count` replies are to harmful prompts."""
    by_kind = [
        JudgedReplies(replies.replies[rows], replies.verdicts[rows])
        for rows in (slice(None, harmful_count), slice(harmful_count, None))
    ]
    rates = [
        replies_of_kind.rate.model_dump(exclude=RATE_FIELDS_LEFT_OUT, exclude_none=True) for replies_of_kind in by_kind
    ]
    return {"harmful": rates[0], "benign": rates[1]}
