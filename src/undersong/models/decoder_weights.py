"""Weights of a fully fine-tuned decoder (blocks and final norm, without embeddings and head): train, save, apply and
undo them exactly. This is the comparison to LoRA.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from undersong.models.adapter_files import differing_base, write_base_note
from undersong.models.weights import read_tensors
from undersong.types import UndersongError

if TYPE_CHECKING:
    from undersong.models.audio_lm import AudioModel

DECODER_WEIGHTS = "decoder.safetensors"


def is_decoder_folder(folder: Path) -> bool:
    """True if a folder holds a fully fine-tuned decoder rather than an adapter."""
    return (folder / DECODER_WEIGHTS).is_file()


def decoder_parameters(model: AudioModel) -> dict[str, torch.nn.Parameter]:
    """Name in the base -> parameter, of all parameters that full fine-tuning trains."""
    decoder, base = model.decoder, model.base
    decoder_ids = {id(parameter) for parameter in decoder.parameters()}
    embedding_modules = [base.get_input_embeddings(), base.get_output_embeddings()]
    decoder_ids -= {
        id(parameter) for module in embedding_modules if module is not None for parameter in module.parameters()
    }
    return {name: parameter for name, parameter in base.named_parameters() if id(parameter) in decoder_ids}


@contextmanager
def trainable_decoder(model: AudioModel) -> Iterator[Any]:
    """Yield the base with a trainable decoder; afterwards, or on failure, restore it bit for bit."""
    parameters = decoder_parameters(model)
    if quantized := [name for name, parameter in parameters.items() if not parameter.is_floating_point()]:
        raise UndersongError(
            f"{quantized[0]} of {model.name} is quantized and cannot learn; take LoRA, or load it whole."
        )
    with _restore_afterwards(model, parameters):
        for parameter in model.base.parameters():
            parameter.requires_grad_(False)
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        yield model.base


def save_decoder(model: AudioModel, folder: Path) -> None:
    """Save the decoder as one safetensors file, with a note of the weights that it started from."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: value.detach().cpu().contiguous() for name, value in decoder_parameters(model).items()}
    save_file(tensors, folder / DECODER_WEIGHTS, metadata={"format": "pt"})
    write_base_note(model, folder)


def load_decoder(model: AudioModel, folder: Path) -> None:
    """Replace the model's decoder by a saved one. Raises UndersongError for another base, or weights that are not
    finite.
    """
    parameters = decoder_parameters(model)
    tensors = read_tensors(folder / DECODER_WEIGHTS)
    shapes = {name: tuple(value.shape) for name, value in parameters.items()}
    for name in sorted(shapes.keys() | tensors.keys()):
        if shapes.get(name) != (tuple(tensors[name].shape) if name in tensors else None):
            raise UndersongError(f"The decoder in {folder} does not fit {model.name} ({name}); take its own base.")
    check_decoder_base(model.name, lambda: model.fingerprint, folder)
    with torch.no_grad():
        for name, value in tensors.items():
            parameters[name].copy_(value)


def check_decoder_base(model: str, fingerprint: Callable[[], str], folder: Path) -> None:
    """Check that a decoder was tuned from this model.

    Args:
        model: Reference of the model.
        fingerprint: Hash of the model's files.
        folder: Folder of the decoder.

    Raises:
        UndersongError: It began from other weights.
    """
    if base := differing_base(model, fingerprint, folder):
        raise UndersongError(
            f"The decoder in {folder} does not fit {model}: it began from {base}, whose weights are others; take its "
            "own base."
        )


@contextmanager
def use_decoder(model: AudioModel, folder: Path) -> Iterator[AudioModel]:
    """Yield the model with a saved decoder; afterwards restore the base bit for bit."""
    with _restore_afterwards(model, decoder_parameters(model)):
        load_decoder(model, folder)
        yield model


@contextmanager
def _restore_afterwards(model: AudioModel, parameters: dict[str, torch.nn.Parameter]) -> Iterator[None]:
    """Restore values and `requires_grad` of the base at the end; the copy is kept in CPU memory."""
    if model.model is not model.base:
        raise UndersongError(f"{model.name} has an adapter on; remove it first.")
    values = {name: value.detach().to("cpu", copy=True) for name, value in parameters.items()}
    requires_grad = {name: parameter.requires_grad for name, parameter in model.base.named_parameters()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in values.items():
                parameters[name].copy_(value)
        for name, parameter in model.base.named_parameters():
            parameter.requires_grad_(requires_grad[name])
            parameter.grad = None
        model.base.eval()
