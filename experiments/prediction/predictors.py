"""Values of all predictors for the registered sets on one base, before any training on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from experiments.prediction.design import REHEARSAL_SEED, Design
from undersong.encoders.registry import make_encoder
from undersong.models.audio_lm import AudioModel
from undersong.models.hooks import record_last_token_states
from undersong.predictors.reference_replies import generate_base_replies
from undersong.predictors.registry import PredictorSettings
from undersong.predictors.rehearsal import reference_margins, rehearse
from undersong.predictors.sample_scores import score_samples
from undersong.proximity.table import proximity_table, ranking_scores
from undersong.tuning.gradient_features import gradient_vectors
from undersong.types import Embeddings, Prompt, Sample

STATES_BATCH = 64


def encoder_scores(
    axes: Sequence[str], pool: Sequence[Sample], reference: Sequence[Sample], benign: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Scores of single samples by encoders that need no base: minus the distance to the nearest reference item.

    The screening score of a sample is its share of ordinary benign items that lie farther from the reference; ties
    count half. Its mean over a set is the set's screening score, up to a constant.

    Args:
        axes: Specs of the encoders.
        pool: Benign samples.
        reference: The reference harm set.
        benign: Ordinary benign samples.
    """
    scores = {}
    for axis in axes:
        encoder = make_encoder(axis, fit=[*pool, *reference, *benign])
        vectors = encoder.encode(reference)
        distances = _nearest(axis, encoder.encode(pool), vectors)
        scores[axis] = {key: -value for key, value in distances.items()}
        if axis == "tfidf":
            others = np.array(list(_nearest(axis, encoder.encode(benign), vectors).values()))
            scores["screening_score"] = {
                key: float(np.mean(others > value) + np.mean(others == value) / 2) for key, value in distances.items()
            }
    return scores


def _nearest(axis: str, vectors: Embeddings, reference: Embeddings) -> dict[str, float]:
    table = proximity_table(axis, "reference", vectors, reference)
    return dict(zip(table.column("id").to_pylist(), ranking_scores(table).astype(float).tolist()))


def base_scores(
    model: AudioModel, pool: Sequence[Sample], reference: Sequence[Sample], design: Design
) -> dict[str, dict[str, float]]:
    """Scores of single samples by predictors that run the base; its clips are encoded already.

    Args:
        model: The base.
        pool: Benign samples, with the replies to train on.
        reference: The reference harm set, with replies that comply.
        design: The predictors, and how the model is prompted.
    """
    settings = design.settings
    ids = [sample.id for sample in pool]
    scores = {
        spec: dict(zip(ids, score_samples(spec, model, pool, reference, "audio", settings).tolist()))
        for spec in ("decoder", "refusal", "gradient-matching", "influence")
        if spec in design.predictors
    }
    audio = make_encoder("internal", fit=[], model=model.cached_audio([*pool, *reference]))
    distances = _nearest("internal", audio.encode(pool), audio.encode(reference))
    scores["internal"] = {key: -value for key, value in distances.items()}
    if "gradients" in design.predictors:
        gradients = [
            gradient_vectors(model, settings.prompts(samples, harmful), settings.replies(samples))
            for samples, harmful in ((pool, False), (reference, True))
        ]
        scores["gradients"] = {key: -value for key, value in _nearest("gradients", *gradients).items()}
    return scores | _direction_scores(model, pool, reference, settings)


def _direction_scores(
    model: AudioModel, pool: Sequence[Sample], reference: Sequence[Sample], settings: PredictorSettings
) -> dict[str, dict[str, float]]:
    """Scores like those of LARF and DataShield, from the states at the end of prompt and reply.

    The layer is the one in which replies that comply with the reference and replies that refuse it differ most, in
    units of their spread.
    """
    harmful = settings.prompts(reference, harmful=True)
    refusals = generate_base_replies(model, harmful, settings.refusal_texts).refusals
    comply = _reply_states(model, harmful, settings.replies(reference))
    refuse = _reply_states(model, harmful, refusals)
    benign = _reply_states(model, settings.prompts(pool, harmful=False), settings.replies(pool))
    gaps = comply.mean(1) - refuse.mean(1)
    spread = np.sqrt((comply.var(1) + refuse.var(1)).sum(-1))
    layer = 1 + int(np.argmax(np.linalg.norm(gaps, axis=-1)[1:] / spread[1:]))
    direction = gaps[layer] / np.linalg.norm(gaps[layer])
    ids = [sample.id for sample in pool]
    larf = _cosine(benign[layer], comply[layer].mean(0)) - _cosine(benign[layer], refuse[layer].mean(0))
    return {
        "larf": dict(zip(ids, larf.tolist())),
        "datashield": dict(zip(ids, (benign[layer] @ direction).tolist())),
    }


def _cosine(states: np.ndarray, vector: np.ndarray) -> np.ndarray:
    cosines: np.ndarray = states @ vector / (np.linalg.norm(states, axis=1) * np.linalg.norm(vector))
    return cosines


@torch.inference_mode()
def _reply_states(model: AudioModel, prompts: Sequence[Prompt], replies: Sequence[str]) -> np.ndarray:
    """Hidden states (layers + 1, prompts, dim) at the last token of prompt and reply."""
    parts = []
    for start in range(0, len(prompts), STATES_BATCH):
        rows = slice(start, start + STATES_BATCH)
        inputs = model.batch(prompts[rows], replies[rows])
        inputs.pop("labels")
        with record_last_token_states(model.decoder.layers) as states:
            model.model(**inputs, use_cache=False)
        parts.append(np.stack([state.float().cpu().numpy() for state in states]))
    return np.concatenate(parts, 1).astype(np.float64)


def rehearsal_values(
    model: AudioModel, sets: Sequence[Sequence[Sample]], reference: Sequence[Sample], design: Design
) -> list[float]:
    """Loss of margin on the reference after the rehearsal of each set."""
    settings = replace(design.settings, seed=REHEARSAL_SEED)
    before = reference_margins(model, reference, settings)
    return [
        rehearse(model, samples, reference, design.recipe, settings, design.rehearsal_steps, before).loss.value
        for samples in sets
    ]


def set_values(scores: Mapping[str, Mapping[str, float]], ids: Sequence[str]) -> dict[str, float]:
    """Mean score of a set by each predictor."""
    return {name: float(np.mean([by_id[key] for key in ids])) for name, by_id in scores.items()}
