"""Predictors of damage, one score per benign sample: gradient matching, influence on the refusal margin, closeness of
the decoder's states, and the base's own leaning to refuse.

Each is an axis: it has a vector per sample, vectors of the reference harm set, and a metric (`axis_measure`). Nothing
is trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from undersong.encoders.embedding_checks import validate_embeddings
from undersong.encoders.spec import (
    DECODER,
    GRADIENT_MATCHING,
    INFLUENCE,
    PREDICTORS,
    REFUSAL,
    EncoderSpec,
    parse_encoder,
)
from undersong.predictors.reference_replies import BaseReplies, calibrate_refusal_tokens, generate_base_replies
from undersong.predictors.refusal_score import refusal_scores
from undersong.predictors.registry import (
    DEFAULT_PREDICTOR_SETTINGS,
    PredictorSettings,
    axis_measure,
    needs_base_replies,
    needs_refusal_tokens,
)
from undersong.tuning.gradient_anchors import influence_anchors, matching_anchors
from undersong.tuning.gradient_features import gradient_vectors
from undersong.types import Embeddings, Prompt, Quarantined, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

STATES_PER_PASS = 256  # prompts whose states of all layers are held at a time


def sample_vectors(
    spec: str,
    model: AudioModel,
    samples: Sequence[Sample],
    settings: PredictorSettings = DEFAULT_PREDICTOR_SETTINGS,
    tokens: Sequence[int] = (),
) -> Embeddings:
    """Vectors of benign samples on an axis that runs the model.

    Args:
        spec: The axis: `gradient-matching[:DIM]`, `influence[:DIM]`, `decoder[:LAYER]` or `refusal`, with options.
        model: The base, with the audio features of the samples.
        samples: The samples.
        settings: Prompts and training.
        tokens: Refusal tokens of the axis `refusal`.

    Returns:
        `gradient-matching`: gradients of the reply's first tokens, of length 1. `influence`: gradients of the whole
            reply, with their length. `decoder`: hidden states of the last prompt token. `refusal`: (log-odds of a
            refusal, 1). Samples that cannot be used are quarantined.
    """
    parsed = parse_encoder(spec)
    if parsed.kind in (GRADIENT_MATCHING, INFLUENCE):
        gradients, is_matching = settings.gradients(parsed), parsed.kind == GRADIENT_MATCHING
        return gradient_vectors(
            model,
            settings.prompts(samples, harmful=False),
            settings.replies(samples),
            dim=gradients.dim,
            rank=gradients.rank,
            alpha=gradients.alpha,
            seed=gradients.seed,
            normalize=is_matching,
            max_tokens=int(parsed.option("tokens")) if is_matching else None,
        )
    prompts, quarantined = usable_prompts(model, settings.prompts(samples, harmful=False))
    if parsed.kind == DECODER:
        return _state_embeddings(parsed, model, prompts, quarantined)
    log_odds = refusal_scores(model, prompts, tokens) if prompts else np.zeros(0)
    vectors = np.stack([log_odds, np.ones(len(prompts))], axis=1)  # log-odds of exactly 0 are no zero vector
    return _prompt_embeddings(f"{spec} of {model.name}", prompts, vectors, quarantined)


def reference_vectors(
    spec: str,
    model: AudioModel,
    samples: Sequence[Sample],
    settings: PredictorSettings = DEFAULT_PREDICTOR_SETTINGS,
    base_replies: BaseReplies | None = None,
) -> Embeddings:
    """Vectors of the reference harm set on an axis that runs the model (see `sample_vectors`).

    Args:
        spec: The axis.
        model: The base, with the audio features of the samples.
        samples: The reference harm set.
        settings: Prompts and training.
        base_replies: The base's replies to the samples, if `needs_base_replies`.

    Returns:
        `gradient-matching`, `influence`: as `matching_anchors` and `influence_anchors`. `decoder`: states. `refusal`:
            the direction (1, 0), so that the product is the log-odds.
    """
    parsed, prompts = parse_encoder(spec), settings.prompts(samples, harmful=True)
    if parsed.kind == DECODER:
        return _state_embeddings(parsed, model, *usable_prompts(model, prompts))
    if base_replies is None:
        raise UndersongError(f"Axis {spec} needs the base's replies to the harm set; generate them first.")
    if parsed.kind == REFUSAL:
        vectors = np.tile([1.0, 0.0], (len(prompts), 1))
        return _prompt_embeddings(f"{spec} of {model.name}", prompts, vectors, [], allow_equal=True)
    compliant, max_tokens = settings.replies(samples), int(parsed.option("tokens"))
    if parsed.kind == INFLUENCE:
        return influence_anchors(
            model, prompts, compliant, base_replies.refusals, max_tokens, settings.gradients(parsed)
        )
    return matching_anchors(
        model,
        prompts,
        compliant,
        base_replies.refusals,
        int(parsed.option("anchors")),
        max_tokens,
        settings.gradients(parsed),
    )


def score_samples(
    spec: str,
    model: AudioModel,
    pool: Sequence[Sample],
    reference: Sequence[Sample],
    modality: str = "audio",
    settings: PredictorSettings = DEFAULT_PREDICTOR_SETTINGS,
) -> np.ndarray:
    """Score of every pool sample by one predictor, (n,) float64: a higher score predicts more damage.

    The scores are: `influence`, the loss of refusal margin per unit step of gradient descent on the sample;
    `gradient-matching`, as published; `decoder`, the cosine with the mean state of the harm set; `refusal`, the
    log-odds that the base refuses the sample. Clips that the model has not encoded yet are encoded.

    Args:
        spec: The predictor, as an axis of a study: `influence`, `gradient-matching`, `decoder[:LAYER]` or `refusal`.
        model: The base.
        pool: Benign samples, with the replies to train on.
        reference: The reference harm set, with replies that comply.
        modality: `audio` or `text`, of the training prompts.
        settings: Prompts and training; the modality is the one given here.

    Raises:
        UndersongError: An unknown predictor, or a sample that cannot be scored.
    """
    from undersong.models.feature_cache import cache_audio_features
    from undersong.proximity.table import proximity_table, ranking_scores

    if parse_encoder(spec).kind not in PREDICTORS:
        raise UndersongError(f"{spec} is no predictor that runs the model; use {', '.join(PREDICTORS)}.")
    settings = replace(settings, modality=modality)
    if modality == "audio":
        cache_audio_features(model, [*pool, *reference])
    base_replies, tokens = None, list[int]()
    if needs_base_replies(spec):
        harmful = settings.prompts(reference, harmful=True)
        base_replies = generate_base_replies(model, harmful, settings.refusal_texts)
        if needs_refusal_tokens(spec):
            benign = settings.prompts(pool, harmful=False)
            tokens = calibrate_refusal_tokens(model, harmful, base_replies.refused, benign, settings.refusal_texts)
    vectors = sample_vectors(spec, model, pool, settings, tokens)
    anchors = reference_vectors(spec, model, reference, settings, base_replies)
    measure = axis_measure(spec)
    table = proximity_table(spec, "reference", vectors, anchors, max_quarantined=0.0, **measure)
    distances = ranking_scores(table).astype(np.float64)
    return -distances if measure.get("metric") == "product" else 1.0 - distances


def usable_prompts(model: AudioModel, prompts: Sequence[Prompt]) -> tuple[list[Prompt], list[Quarantined]]:
    """Prompts that the model can read, and the others with the reason: no audio features, too long, or a stray
    placeholder."""
    usable, quarantined = [], []
    for prompt in prompts:
        try:
            model.batch([prompt])
        except UndersongError as error:
            quarantined.append(Quarantined(prompt.sample.id, str(error)))
        else:
            usable.append(prompt)
    return usable, quarantined


def decoder_states(model: AudioModel, prompts: Sequence[Prompt], layer: int | None = None) -> np.ndarray:
    """Hidden states (prompts, dim) float32 of the last prompt token, as transformers' `output_hidden_states` has them.

    They are those of one layer's output, where 0 is the decoder's input. Those of the last layer have passed the final
    norm, as in He et al. (arXiv 2404.01099).

    Args:
        model: The model.
        prompts: The prompts.
        layer: The layer; None: the last.

    Raises:
        UndersongError: The decoder has no such layer.
    """
    import torch

    last = model.layers
    number = last if layer is None else layer
    if not 0 <= number <= last:
        raise UndersongError(f"{model.name} has no decoder layer {number}; use a layer from 0 to {last}.")
    parts = [
        model.hidden_states(prompts[start : start + STATES_PER_PASS])[number]
        for start in range(0, len(prompts), STATES_PER_PASS)
    ]
    states = np.concatenate(parts) if parts else np.zeros((0, model.decoder.config.hidden_size), np.float32)
    if number < last:
        return states
    with torch.inference_mode():
        normed: np.ndarray = model.decoder.norm(model.to_device(torch.from_numpy(states))).float().cpu().numpy()
    return normed


def _state_embeddings(
    spec: EncoderSpec, model: AudioModel, prompts: Sequence[Prompt], quarantined: Sequence[Quarantined]
) -> Embeddings:
    states = decoder_states(model, prompts, int(spec.ref) if spec.ref else None)
    return _prompt_embeddings(f"{spec.canonical} of {model.name}", prompts, states, quarantined)


def _prompt_embeddings(
    name: str,
    prompts: Sequence[Prompt],
    vectors: np.ndarray,
    quarantined: Sequence[Quarantined],
    allow_equal: bool = False,
) -> Embeddings:
    all_text = all(prompt.modality == "text" for prompt in prompts)  # one text in several voices is one prompt
    ids = [prompt.sample.id for prompt in prompts]
    return validate_embeddings(
        name,
        ids,
        vectors.astype(np.float32),
        np.zeros(len(ids), np.int64),
        quarantined,
        allow_equal=allow_equal or all_text,
    )
