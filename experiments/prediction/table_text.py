"""Texts of the tables of both prediction experiments: labels of the predictors, numbers, intervals and p values."""

from __future__ import annotations

from experiments.prediction.design import REHEARSAL_STEPS

LABELS = {
    "not_far": "metadata: share that is not `far` (baseline)",
    "groups": "metadata: number of groups",
    "voices": "metadata: number of voices",
    "words": "metadata: mean number of words",
    "imperative": "metadata: share of imperative requests",
    "tfidf": "distance: TF-IDF",
    "char-ngrams": "distance: character n-grams",
    "logmel": "distance: log-mel",
    "whisper:organism:ear": "distance: speech encoder",
    "internal": "distance: the model's own encoder",
    "screening_score": "screening score (TF-IDF)",
    "decoder": "forward: decoder state, to the harm set's mean",
    "refusal": "forward: refusal log-odds of the sample",
    "larf": "forward: like LARF",
    "datashield": "forward: like DataShield",
    "gradients": "gradient: cosine to the nearest anchor",
    "gradient-matching": "gradient: matching, as published",
    "influence": "gradient: influence",
    "rehearsal": f"rehearsal of {REHEARSAL_STEPS} steps",
}


def number_text(value: float) -> str:
    """'−0.31'."""
    return f"{value:.2f}".replace("-", "−")


def interval_text(value: float, low: float, high: float) -> str:
    """'0.56 [0.43, 0.68]'."""
    return f"{number_text(value)} [{number_text(low)}, {number_text(high)}]"


def p_text(value: float) -> str:
    """'.041' or '< .001'."""
    return "< .001" if value < 0.001 else f"{value:.3f}".lstrip("0")
