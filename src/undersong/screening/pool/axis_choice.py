"""Axes of a screening: those that were named, or those that all corpora can be measured on."""

from __future__ import annotations

from collections.abc import Mapping

from undersong.screening.pool.checks import check_axes, check_modalities, check_pool, lacking_corpora
from undersong.screening.pool.findings import padded_axes
from undersong.screening.pool.inputs import ScreeningCorpora, check_corpora
from undersong.screening.pool.options import PRECOMPUTED, SHIPPED_HARM, ScreeningOptions
from undersong.screening.pool.rehearsal import check_rehearsal
from undersong.stages.engine import DEFAULT_ENGINE
from undersong.types import UndersongError

INFLUENCE = "influence"
DEFAULT_AXES = (("semantic", "tfidf", "text"), ("acoustic", "logmel", "audio"))


def checked_axes(corpora: ScreeningCorpora, options: ScreeningOptions) -> Mapping[str, str]:
    """Encoder of each axis, after all checks that are possible before embedding."""
    check_corpora(corpora, options.max_quarantined)
    axes = _axes_or_default(corpora, options)
    check_axes(options, axes, corpora)
    check_pool(options, axes, corpora.pool)
    check_modalities(axes, corpora, options.max_quarantined)
    if options.rehearse:
        check_rehearsal(options, corpora)
    if options.check_padding:
        padded_axes(axes)
    return axes


def _axes_or_default(corpora: ScreeningCorpora, options: ScreeningOptions) -> Mapping[str, str]:
    """Requested axes, or those that all corpora can be measured on.

    With a model, and replies in all corpora, the first is `influence`, which foretold damage best
    (docs/results/prediction.md). Items that lack text or audio are left to the quarantine rule: dropping an axis for
    them would silently select by another.
    """
    if options.axes is not None:
        return options.axes
    if corpora.pool.precomputed is not None:
        return {"internal": PRECOMPUTED}

    axes = {axis: encoder for axis, encoder, field in DEFAULT_AXES if not lacking_corpora(field, corpora)}
    if not axes:
        if all(harm.ref == SHIPPED_HARM for harm in corpora.harm.values()):
            raise UndersongError(
                f"The harmful requests of {SHIPPED_HARM} are texts, and {corpora.pool.ref} has none; name spoken ones "
                "with --harm, or give the pool transcripts."
            )
        raise UndersongError(
            "The pool and the harm set have neither text nor audio in common; fill one column in both."
        )
    uses_model = options.model is not None and not options.rehearse and options.engine == DEFAULT_ENGINE
    if uses_model and not lacking_corpora("answer", corpora):
        axes = {INFLUENCE: INFLUENCE, **axes}
    return axes
