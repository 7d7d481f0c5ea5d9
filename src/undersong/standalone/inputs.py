"""Inputs of the standalone commands: usable samples, a loaded model with cached audio features, adapter folders, and
refusal texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from undersong.models.load_options import LoadOptions
from undersong.stages.corpus import check_all_usable
from undersong.types import MODALITIES, Sample, UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel


def check_modality(modality: str) -> None:
    """Raise UndersongError for a modality that there is none of."""
    if modality not in MODALITIES:
        raise UndersongError(f"There is no modality {modality!r}; take audio or text.")


def examine_samples(samples: Sequence[Sample], modality: str) -> tuple[Sequence[Sample], Sequence[Any]]:
    """Decode the audio of samples that are used as audio; for text prompts nothing is decoded."""
    from undersong.corpora.audio_metadata import examine

    check_modality(modality)
    return examine(samples if modality == "audio" else [replace(sample, audio=None) for sample in samples])


def usable_samples(ref: str, modality: str) -> Sequence[Sample]:
    """Return all samples of a corpus; an unusable one is an error."""
    from undersong.corpora.registry import open_corpus

    manifest = open_corpus(ref)
    usable, failed = examine_samples(manifest.samples, modality)
    check_all_usable(ref, (*manifest.quarantined, *failed))
    return usable


def load_model_with_audio(ref: str, loading: LoadOptions, samples: Sequence[Sample]) -> AudioModel:
    """Load a model and encode the audio of the samples."""
    from undersong.models.load import load_model

    model = load_model(ref, loading)
    cache_all_audio(model, samples)
    return model


def cache_all_audio(model: AudioModel, samples: Sequence[Sample]) -> None:
    """Encode the audio of all samples; raises UndersongError for a clip that the model cannot encode completely."""
    from undersong.models.feature_cache import cache_audio_features

    _, failed, _ = cache_audio_features(model, samples)
    if failed:
        raise UndersongError(
            f"Clip {failed[0].id} cannot be used with {model.name} ({failed[0].reason}; {len(failed)} in all); fix it "
            "or take it out."
        )


def refusal_texts(judge: str, refusals: Sequence[str], model: str) -> Sequence[str]:
    """Return the texts that the exact judge counts as refusals.

    The texts of an organism are known; those of any other model must be given.

    Raises:
        UndersongError: The judge is `exact`, no text is given, and the model is not an organism.
    """
    if refusals or judge != "exact":
        return refusals
    from undersong.stages.predictors import known_refusal_texts

    if known := known_refusal_texts(model):
        return known
    raise UndersongError(
        f"The exact judge must know how {model} refuses; give --refusal-text, or take another judge (keyword reads "
        "English)."
    )


def check_adapter(folder: Path, model: str, allow_outside_decoder: bool) -> Path:
    """Return the folder if it holds a PEFT adapter whose config fits the model and whose weights change something, or a
    fully tuned decoder.

    Args:
        folder: Folder of the adapter.
        model: Reference of the model.
        allow_outside_decoder: Whether the adapter may change encoder and projector.

    Raises:
        UndersongError: The folder holds neither, its config rules it out, or its weights are damaged.
    """
    from undersong.models.adapter_check import check_adapter_config, check_adapter_weights

    check_adapter_config(model, check_adapter_folder(folder), allow_outside_decoder)
    check_adapter_weights(folder)
    return folder


def check_adapter_folder(folder: Path) -> Path:
    """Return the folder if it holds a PEFT adapter or a fully tuned decoder.

    Raises:
        UndersongError: The folder holds neither, or a pipe or a device is among its files.
    """
    from undersong.models.decoder_weights import is_decoder_folder
    from undersong.models.pretrained import check_regular_files

    check_regular_files(folder)
    if is_decoder_folder(folder):
        return folder
    required = ("adapter_config.json", "adapter_model.safetensors")
    if missing := [name for name in required if not (folder / name).is_file()]:
        if (folder / "adapter_model.bin").is_file():
            raise UndersongError(
                f"{folder} holds its weights in adapter_model.bin, which may run code when it is read; save the "
                "adapter again as safetensors."
            )
        step_folders = (path for pattern in ("step-*", "checkpoint-*") for path in sorted(folder.glob(pattern)))
        steps = ", ".join(map(str, step_folders)) or "one that a trainer wrote"
        raise UndersongError(f"{folder} is no PEFT adapter folder: it holds no {missing[0]}; give {steps}.")
    return folder
