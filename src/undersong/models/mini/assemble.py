"""Assembly of a Mini model folder from base weights and learned parts, which are verified by their hashes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undersong.models.mini.base_weights import build_mini, read_smollm, read_tokenizer, read_whisper, weights_hash
from undersong.models.mini.network import CTC, MiniConfig
from undersong.models.mini.paths import PARTS_FILE, REMARKS_FILE
from undersong.models.pretrained import check_regular_files
from undersong.models.refs import resolve_model
from undersong.models.weights import merge_published_lora, read_tensors
from undersong.store.atomic import atomic_replacement, report_disk_errors
from undersong.types import UndersongError

FRONT_END_FILE, TEMPLATE_FILE = "front.safetensors", "chat_template.jinja"
CARD_FILE, CARD_PAGE = "card.json", "CARD.md"  # measurements of the parts, with file hashes; the same as text
HEARD_BUFFER, TABLE_BUFFER = "model.multi_modal_projector.heard", "model.multi_modal_projector.table"


class MiniParts(BaseModel):
    """`parts.json`: the settings that the parts were trained with, and the adapters that each model has merged, in
    order.
    """

    model_config = ConfigDict(extra="forbid")

    window: int = Field(gt=0)  # seconds
    audio_token: str
    projector: Literal["ctc", "af3"] = CTC
    learned_layers: int = Field(gt=0)  # of the audio encoder, from the top
    adapters: dict[str, list[str]]
    whisper: str  # hash of the weights that the parts were trained on
    smollm: str


@dataclass(frozen=True)
class AssembledModel:
    """Folder of an assembled model, and remarks about it."""

    folder: Path
    notes: tuple[str, ...] = ()


def assemble_mini(
    name: str, whisper: str, smollm: str, parts: Path, out: Path, say: Callable[[str], None] | None = None
) -> AssembledModel:
    """Assemble a model and write it to `out` atomically. An existing Mini is replaced only by a complete one.

    Args:
        name: One of the models in `parts.json`.
        whisper: Folder or Hugging Face id of the Whisper weights.
        smollm: Folder or Hugging Face id of the language model.
        parts: Folder of the learned parts.
        out: Folder to write.
        say: Receives a line for each step.

    Raises:
        UndersongError: Unknown name, an `out` that holds anything else, or parts or base weights that cannot be read or
            do not fit one another.
    """
    out = out.resolve()
    check_replaceable(out)
    parts_config, changed_names = read_parts_file(parts), find_changed_parts(parts)
    if name not in parts_config.adapters:
        raise UndersongError(f"{parts} holds no model {name!r}; take one of {', '.join(parts_config.adapters)}.")
    say = say or (lambda line: None)
    say(f"reading the encoder of {whisper}")
    encoder = read_whisper(whisper)
    say(f"reading {smollm}")
    language_model, tokenizer = read_smollm(smollm), read_tokenizer(smollm)
    say(f"adding the learned parts in {parts}")
    projector_options = parts_config.projector, _read_heard_ids(parts), parts_config.learned_layers
    model = build_mini(
        encoder, language_model, tokenizer, parts_config.audio_token, parts_config.window, *projector_options
    )
    load_front_end(model, parts / FRONT_END_FILE)
    for adapter in parts_config.adapters[name]:
        if not merge_published_lora(model, parts, adapter, {}):
            raise UndersongError(f"{parts} holds no adapter {adapter}; fetch the parts again.")
    template = _read_text(parts / TEMPLATE_FILE)
    weight_hashes = {
        "whisper": (parts_config.whisper, weights_hash(encoder.state_dict())),
        "smollm": (parts_config.smollm, weights_hash(language_model.state_dict())),
    }
    notes = [
        f"The {component} weights are not those that the card's figures were measured with; evaluate before you rely "
        "on it."
        for component, (expected, actual) in weight_hashes.items()
        if expected != actual
    ]  # fmt: skip
    notes += [
        f"{file} is not what the card's figures were measured with; fetch the parts again, or evaluate them."
        for file in changed_names
    ]
    say(f"writing {out}")
    save_mini_folder(model, tokenizer, template, parts_config.window, out, notes)
    return AssembledModel(out, tuple(notes))


def read_parts_file(parts: Path) -> MiniParts:
    """Read `parts.json`. Raises UndersongError for a missing folder, an invalid file, and a pipe among the parts."""
    file = parts / PARTS_FILE
    check_regular_files(parts)
    if not file.is_file():
        raise UndersongError(f"There are no parts of Mini at {parts}; give their folder as --learned-weights.")
    try:
        return MiniParts.model_validate_json(_read_text(file))
    except ValidationError as error:
        first_error = error.errors()[0]
        location = "".join(f"{key}: " for key in first_error["loc"])
        raise UndersongError(
            f"{file} cannot be read ({location}{first_error['msg']}); fetch the parts again."
        ) from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"{file} cannot be read ({error}); fetch the parts again.") from error


def hash_parts(parts: Path) -> dict[str, str]:
    """Map the path of every part to its SHA-256, without the two files of the card."""
    files = sorted(file for file in parts.rglob("*") if file.is_file() and file.name not in (CARD_FILE, CARD_PAGE))
    return {file.relative_to(parts).as_posix(): sha256(file.read_bytes()).hexdigest() for file in files}


def find_changed_parts(parts: Path) -> list[str]:
    """Files that differ from `card.json`, are missing or are additional; empty if there is no card."""
    card = parts / CARD_FILE
    if not card.is_file():
        return []
    try:
        recorded = dict(json.loads(_read_text(card))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise UndersongError(f"{card} names no files and their hashes ({error}); fetch the parts again.") from error
    actual = hash_parts(parts)
    return sorted(name for name in recorded.keys() | actual.keys() if recorded.get(name) != actual.get(name))


# --- learned parts ----------------------------------------------------------------------------------------------------
def _read_heard_ids(parts: Path) -> torch.Tensor:
    tensors = read_tensors(parts / FRONT_END_FILE)
    return tensors.get(HEARD_BUFFER, torch.zeros(1, dtype=torch.long)).long()


def front_end_names(model: Any) -> list[str]:
    """Names of the trained front-end tensors: top layers, the audio encoder's norm, the projector without its table."""
    tower = model.model.audio_tower
    layers = range(len(tower.layers) - tower.num_learned_layers, len(tower.layers))
    top_prefixes = (f"model.audio_tower.layers.{i}." for i in layers)
    prefixes = (*top_prefixes, "model.audio_tower.layer_norm.", "model.multi_modal_projector.")
    return [name for name in model.state_dict() if name.startswith(prefixes) and name != TABLE_BUFFER]


def load_front_end(model: Any, file: Path) -> None:
    """Replace the base's tensors by trained ones. Raises UndersongError if names or shapes differ."""
    tensors, state = read_tensors(file), model.state_dict()
    expected = set(front_end_names(model))
    if mismatched := sorted(expected.symmetric_difference(tensors)):
        raise UndersongError(
            f"{file} does not fit the base weights: {mismatched[0]} is on one side only; give their own."
        )
    for name, value in tensors.items():
        if state[name].shape != value.shape:
            raise UndersongError(f"{file} has another shape of {name}; give the base weights that it was trained on.")
        state[name].copy_(value)


def save_mini_folder(
    model: Any, tokenizer: Any, template: str, window: int, out: Path, remarks: Sequence[str] = ()
) -> None:
    """Write an ordinary model folder: weights, config, tokenizer, feature extractor and template.

    Args:
        model: The network.
        tokenizer: The tokenizer.
        template: The chat template.
        window: Seconds of a window.
        out: Folder to write.
        remarks: Lines for `doctor`, because merged weights do not show what was merged.
    """
    from transformers import WhisperFeatureExtractor

    with report_disk_errors(out.parent), atomic_replacement(out) as staging:
        staging.mkdir()
        model.save_pretrained(staging)
        tokenizer.chat_template = None  # SmolLM2's own adds a system turn and writes no audio
        tokenizer.save_pretrained(staging)
        mel_bins = model.config.audio_config.num_mel_bins
        extractor = WhisperFeatureExtractor(feature_size=mel_bins, chunk_length=window, return_attention_mask=True)
        extractor.save_pretrained(staging)
        (staging / TEMPLATE_FILE).write_text(template, encoding="utf-8")
        if remarks:
            (staging / REMARKS_FILE).write_text("".join(f"{line}\n" for line in remarks), encoding="utf-8")


def check_replaceable(out: Path) -> None:
    """Raise UndersongError if `out` holds anything but a Mini; it would be lost."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        model_types = resolve_model(str(out))[2].model_types if out.is_dir() else ()
    except UndersongError:  # no model at all
        model_types = ()
    if MiniConfig.model_type not in model_types:
        raise UndersongError(f"{out} holds something else than a Mini; give a new or an empty folder as --out.")
