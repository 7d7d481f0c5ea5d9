"""The gradient axis of a study: what one step on each sample would teach the model, pool and harm alike.

Knows the features stage and the tuning room's vectors; does not know distances.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from undersong.stages.context import Corpus, RunContext
from undersong.stages.features import MODEL_PACKAGES, encodable_samples
from undersong.store import Artifact, Draft
from undersong.store.store import Inputs


def compute_gradients(
    ctx: RunContext,
    model_ref: str,
    corpus: Corpus,
    features: Artifact,
    harmful: bool,
    system_text: str | None,
    target: str,
    settings: dict[str, Any],
) -> Artifact:
    """Projected LoRA gradients of the base on every sample, spoken, with the reply in column `target`.

    `settings`: dim, rank, alpha, seed.  The harm set's replies must be compliant ones, as the organism's are; a sample
    without a reply is quarantined, and a harm item that is stops the study.
    """
    from undersong.models.refs import model_hash

    def make(draft: Draft) -> None:
        from undersong.encoders.embeddings import write_embeddings
        from undersong.evaluation.prompts import make_prompts
        from undersong.tuning.gradient_features import gradient_vectors

        samples, unencoded = encodable_samples(corpus, features)
        prompts = make_prompts(
            samples, set_name="gradients", harmful=harmful, modality="audio", system="train", system_text=system_text
        )
        replies = [sample.column(target) or "" for sample in samples]
        vectors = gradient_vectors(ctx.model(model_ref, [features]), prompts, replies, **settings)
        write_embeddings(replace(vectors, quarantined=(*unencoded, *vectors.quarantined)), draft.path)

    config = {"settings": settings, "system": system_text, "target": target, "loading": ctx.loading.cache_key}
    inputs: Inputs = {"model": model_hash(model_ref), "corpus": corpus.artifact, "heard": features}
    return ctx.store.get_or_make("gradients", 1, config, inputs, make, seed=settings["seed"], packages=MODEL_PACKAGES)
