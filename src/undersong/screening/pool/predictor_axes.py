"""Vectors of the axes of a screening that run the model: of the pool, the harm sets and the benign reference."""

from __future__ import annotations

from collections.abc import Mapping

from undersong.screening.pool.inputs import ScreeningCorpora
from undersong.screening.pool.options import PRECOMPUTED, ScreeningOptions
from undersong.screening.pool.separation import is_gradient_matching
from undersong.stages.context import Corpus, RunContext
from undersong.stages.predictors import PredictorAxis, known_refusal_texts, predictor_modality
from undersong.store.store import Artifact
from undersong.types import Embeddings


def predictor_artifacts(
    ctx: RunContext, corpora: ScreeningCorpora, encoder: str, options: ScreeningOptions
) -> list[Artifact]:
    """Vectors of an axis that runs the model, of every side.

    Args:
        ctx: The run context.
        corpora: The corpora.
        encoder: The axis.
        options: Options of the screening.
    """
    axis = _predictor_axis(ctx, corpora, encoder, options)
    benign = None if corpora.benign is None else corpora.benign.corpus
    return [
        axis.sample_vectors(axis.pool),
        *map(axis.reference_vectors, _harm_corpora(corpora).values()),
        *([] if benign is None else [axis.sample_vectors(benign)]),
    ]


def harm_sample_vectors(
    ctx: RunContext, corpora: ScreeningCorpora, axes: Mapping[str, str], options: ScreeningOptions
) -> dict[str, dict[str, Embeddings]]:
    """Vectors of each harm set as samples, by axis, of axes that run the model; none without a benign reference.

    Args:
        ctx: The run context.
        corpora: The corpora.
        axes: Encoder of each axis.
        options: Options of the screening.
    """
    from undersong.encoders.embeddings import read_embeddings
    from undersong.encoders.registry import is_predictor

    if corpora.benign is None:
        return {}
    return {
        axis: {
            name: read_embeddings(predictor.sample_vectors(corpus).path)
            for predictor in [_predictor_axis(ctx, corpora, encoder, options)]
            for name, corpus in _harm_corpora(corpora).items()
        }
        for axis, encoder in axes.items()
        if encoder != PRECOMPUTED and is_predictor(encoder) and not is_gradient_matching(encoder)
    }


def _harm_corpora(corpora: ScreeningCorpora) -> dict[str, Corpus]:
    return {name: harm_input.corpus for name, harm_input in corpora.harm.items() if harm_input.corpus is not None}


def _predictor_axis(
    ctx: RunContext, corpora: ScreeningCorpora, encoder: str, options: ScreeningOptions
) -> PredictorAxis:
    """An axis that runs the model, calibrated on the pool and the first harm set."""
    from undersong.predictors.registry import PredictorSettings

    pool = corpora.pool.corpus
    assert pool is not None, "embeddings are no prompts"
    assert options.model is not None, "checked before"
    settings = PredictorSettings(
        modality=predictor_modality(encoder, "audio"),
        system_text=options.system_prompt,
        refusal_texts=known_refusal_texts(options.model),
    )
    first_harm = next(iter(_harm_corpora(corpora).values()))
    return PredictorAxis(ctx, encoder, options.model, settings, pool, first_harm)
