"""The audited model's own axis on two corpora: what cannot be heard whole is quarantined like any other item.

Knows models and encoders; keeps nothing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from undersong.models.loading import PLAIN, Loading
from undersong.types import Embeddings, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel


def listener(ref: str | None, loading: Loading = PLAIN) -> Callable[[str, Sequence[Sample]], Embeddings]:
    """(encoder spec, samples) -> embeddings by the model `ref`, which is loaded when first asked and hears a clip once.

    Errors: an internal axis without a model; a view that its family does not have.
    """

    @cache
    def loaded() -> AudioModel:
        from undersong.models.load import load_model

        if ref is None:
            raise UndersongError("An internal axis is what a model hears; name the model with --model.")
        return load_model(ref, loading)

    def embed(spec: str, samples: Sequence[Sample]) -> Embeddings:
        from undersong.encoders import make_encoder, view_of
        from undersong.models.features import listen

        model = loaded()
        _, failed, _ = listen(model, samples)
        lost = {item.id for item in failed}
        heard = [sample for sample in samples if sample.id not in lost]
        made = make_encoder(spec, fit=(), model=model.ears(heard, view_of(spec))).encode(heard)
        return dataclasses.replace(made, quarantined=(*failed, *made.quarantined))

    return embed
