"""Samples examined before a model is loaded, and a model that has heard them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from undersong.models.loading import Loading
from undersong.types import MODALITIES, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.adapter import AudioModel


def examine_samples(samples: Sequence[Sample], modality: str) -> tuple[Sequence[Sample], Sequence[Any]]:
    """Decode what will be heard; what is only read needs no audio."""
    from undersong.corpora import examine

    if modality not in MODALITIES:
        raise UndersongError(f"There is no modality {modality!r}; take audio or text.")
    return examine(samples if modality == "audio" else [replace(sample, audio=None) for sample in samples])


def usable_samples(ref: str, modality: str) -> Sequence[Sample]:
    """Every item of a corpus, all of them usable."""
    from undersong.corpora import open_corpus

    manifest = open_corpus(ref)
    usable, failed = examine_samples(manifest.samples, modality)
    if unusable := (*manifest.quarantined, *failed):
        raise UndersongError(
            f"Item {unusable[0].id} of {ref} cannot be asked ({unusable[0].reason}; {len(unusable)} in all); mend it or take it "
            "out: a rate is over all prompts."
        )
    return usable


def load_model_with_audio(ref: str, loading: Loading, samples: Sequence[Sample]) -> AudioModel:
    """The loaded model, having heard the samples."""
    from undersong.models.load import load_model

    model = load_model(ref, loading)
    cache_all_audio(model, samples)
    return model


def cache_all_audio(model: AudioModel, samples: Sequence[Sample]) -> None:
    """Errors: a clip that the model cannot hear whole."""
    from undersong.models.features import cache_audio_features

    _, failed, _ = cache_audio_features(model, samples)
    if failed:
        raise UndersongError(
            f"Clip {failed[0].id} cannot be used with {model.name} ({failed[0].reason}; {len(failed)} such); mend it "
            "or take it out."
        )
