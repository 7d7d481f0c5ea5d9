"""The smallest study that trains: one organism, one axis, one step on typed requests, six spoken ones asked."""

from __future__ import annotations

from typing import Any


def tiny_study(selection: dict[str, Any], **tuning: Any) -> dict[str, Any]:
    """As a study file says it; `selection` and `tuning` go on top of what is here."""
    return {
        "study": "tiny",
        "models": ["organism:af3"],
        "pool": "organism:pool",
        "reference": "organism:reference",
        "prompt_sets": {"harm": {"corpus": "organism:unseen-harm", "harmful": True}},
        "axes": {"semantic": "tfidf"},
        "selection": {"filters": {"speaker": ["A"]}, **selection},
        "tuning": {"modalities": ["text"], "save_steps": [1], "batch_size": 2, **tuning},
        "evaluation": {"modalities": ["audio"], "max_new_tokens": 6},
    }
