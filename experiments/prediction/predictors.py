"""Values of all predictors for the registered sets on one base, before any training on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from experiments.prediction.design import IMPERATIVES, RECIPE, REHEARSAL_SEED, REHEARSAL_STEPS, SYSTEM_TEXT, kind_of
from undersong.encoders import make_encoder
from undersong.mechanism.predictors import PredictorSettings
from undersong.mechanism.reference_replies import generate_base_replies
from undersong.mechanism.rehearsal import reference_margins, rehearse
from undersong.mechanism.sample_scores import score_samples
from undersong.models.audio_lm import AudioModel
from undersong.models.hooks import record_last_token_states
from undersong.proximity import proximity_table, ranking_scores
from undersong.study.defaults import ORGANISM_REFUSALS
from undersong.tuning.gradient_features import gradient_vectors
from undersong.types import Embeddings, Prompt, Sample

SETTINGS = PredictorSettings(system_text=SYSTEM_TEXT, refusal_texts=ORGANISM_REFUSALS)
AXES = ("tfidf", "char-ngrams", "logmel", "whisper:organism:ear")
STATES_BATCH = 64


def metadata_values(samples: Sequence[Sample]) -> dict[str, float]:
    """Predictors that need labels and texts alone."""
    texts = [(sample.text or "").split() for sample in samples]
    return {
        "not_far": float(np.mean([kind_of(sample) != "far" for sample in samples])),
        "groups": float(len({sample.cluster for sample in samples})),
        "voices": float(len({sample.speaker for sample in samples})),
        "words": float(np.mean([len(words) for words in texts])),
        "imperative": float(np.mean([words[0] in IMPERATIVES for words in texts])),
    }


def encoder_scores(
    pool: Sequence[Sample], reference: Sequence[Sample], benign: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Scores of single samples by encoders that need no base: minus the distance to the nearest reference item.

    The screening score of a sample is its share of ordinary benign items that lie farther from the reference; ties
    count half. Its mean over a set is the set's screening score, up to a constant.

    Args:
        pool: Benign samples.
        reference: The reference harm set.
        benign: Ordinary benign samples.
    """
    scores = {}
    for axis in AXES:
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


def base_scores(model: AudioModel, pool: Sequence[Sample], reference: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Scores of single samples by predictors that run the base; its clips are encoded already."""
    ids = [sample.id for sample in pool]
    scores = {
        spec: dict(zip(ids, score_samples(spec, model, pool, reference, "audio", SETTINGS).tolist()))
        for spec in ("decoder", "refusal", "gradient-matching", "influence")
    }
    audio = make_encoder("internal", fit=[], model=model.cached_audio([*pool, *reference]))
    distances = _nearest("internal", audio.encode(pool), audio.encode(reference))
    scores["internal"] = {key: -value for key, value in distances.items()}
    gradients = [
        gradient_vectors(model, SETTINGS.prompts(samples, harmful), SETTINGS.replies(samples))
        for samples, harmful in ((pool, False), (reference, True))
    ]
    scores["gradients"] = {key: -value for key, value in _nearest("gradients", *gradients).items()}
    return scores | _direction_scores(model, pool, reference)


def _direction_scores(
    model: AudioModel, pool: Sequence[Sample], reference: Sequence[Sample]
) -> dict[str, dict[str, float]]:
    """Scores like those of LARF and DataShield, from the states at the end of prompt and reply.

    The layer is the one in which replies that comply with the reference and replies that refuse it differ most, in
    units of their spread.
    """
    harmful = SETTINGS.prompts(reference, harmful=True)
    refusals = generate_base_replies(model, harmful, SETTINGS.refusal_texts).refusals
    comply = _reply_states(model, harmful, SETTINGS.replies(reference))
    refuse = _reply_states(model, harmful, refusals)
    benign = _reply_states(model, SETTINGS.prompts(pool, harmful=False), SETTINGS.replies(pool))
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


def rehearsal_values(model: AudioModel, sets: Sequence[Sequence[Sample]], reference: Sequence[Sample]) -> list[float]:
    """Loss of margin on the reference after the rehearsal of each set."""
    settings = PredictorSettings(system_text=SYSTEM_TEXT, refusal_texts=SETTINGS.refusal_texts, seed=REHEARSAL_SEED)
    before = reference_margins(model, reference, settings)
    return [
        rehearse(model, samples, reference, RECIPE, settings, REHEARSAL_STEPS, before).loss.value for samples in sets
    ]


def set_values(scores: Mapping[str, Mapping[str, float]], ids: Sequence[str]) -> dict[str, float]:
    """Mean score of a set by each predictor."""
    return {name: float(np.mean([by_id[key] for key in ids])) for name, by_id in scores.items()}
