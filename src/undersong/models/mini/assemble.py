"""A Mini model folder out of base weights and learned parts: nothing of the base is shipped, nothing learned is lost.

Parts (a folder): `parts.json`, `front.safetensors` (the tower's top layers and norm, the projector), one standard PEFT
folder an adapter, `chat_template.jinja`; `card.json`, where they were measured.  Knows files and the network; does not
know how anything was learned.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from undersong.models.identify import identify
from undersong.models.merge import merge_published
from undersong.models.mini.bases import plain_mini, read_smollm, read_tokenizer, read_whisper, weights_hash
from undersong.models.mini.network import CTC, MiniConfig
from undersong.models.mini.place import NOTE, REMARKS
from undersong.models.tensors import read_tensors
from undersong.store.files import mending, replacing
from undersong.types import UndersongError

FRONT, TEMPLATE = "front.safetensors", "chat_template.jinja"
CARD, PAGE = "card.json", "CARD.md"  # what was measured of the parts, with their files' hashes; the same to read
HEARD, TABLE = "model.multi_modal_projector.heard", "model.multi_modal_projector.table"


class Parts(BaseModel):
    """`parts.json`: what the learned parts were learned with, and which adapters each model has merged, in order."""

    model_config = ConfigDict(extra="forbid")

    window: int = Field(gt=0)  # seconds
    audio_token: str
    projector: Literal["ctc", "af3"] = CTC
    learned_layers: int = Field(gt=0)  # of the tower, from the top
    adapters: dict[str, list[str]]
    whisper: str  # hash of the weights that the parts were learned on
    smollm: str


@dataclass(frozen=True)
class Assembled:
    """Where a model was put, and what is to be said of it."""

    folder: Path
    notes: tuple[str, ...] = ()


def assemble(name: str, whisper: str, smollm: str, parts: Path, out: Path) -> Assembled:
    """Writes the folder beside `out` and renames it; a Mini that is there is replaced only by a whole one.

    Errors: a name that is none, an `out` that holds anything else, parts or base weights that cannot be read or do not
    fit one another.
    """
    out = out.resolve()
    _check_replaceable(out)
    note, changed = read_note(parts), changed_files(parts)
    if name not in note.adapters:
        raise UndersongError(f"{parts} holds no model {name!r}; take one of {', '.join(note.adapters)}.")
    encoder, read, tokenizer = read_whisper(whisper), read_smollm(smollm), read_tokenizer(smollm)
    shape = note.projector, _heard(parts), note.learned_layers
    model = plain_mini(encoder, read, tokenizer, note.audio_token, note.window, *shape)
    put_front(model, parts / FRONT)
    for adapter in note.adapters[name]:
        if not merge_published(model, parts, adapter, {}):
            raise UndersongError(f"{parts} holds no adapter {adapter}; fetch the parts again.")
    template = _read_text(parts / TEMPLATE)
    measured = {
        "whisper": (note.whisper, weights_hash(encoder.state_dict())),
        "smollm": (note.smollm, weights_hash(read.state_dict())),
    }
    notes = [
        f"The {side} weights are not those that the card's figures were measured with; evaluate before you rely on it."
        for side, (then, now) in measured.items()
        if then != now
    ]  # fmt: skip
    notes += [
        f"{file} is not what the card's figures were measured with; fetch the parts again, or evaluate them."
        for file in changed
    ]
    write_folder(model, tokenizer, template, note.window, out, notes)
    return Assembled(out, tuple(notes))


def read_note(parts: Path) -> Parts:
    """`parts.json`.  Errors: no such folder, a file that is none."""
    file = parts / NOTE
    if not file.is_file():
        raise UndersongError(f"There are no parts of Mini at {parts}; give their folder as --parts.")
    try:
        return Parts.model_validate_json(_read_text(file))
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}: " for part in first["loc"])
        raise UndersongError(f"{file} cannot be read ({where}{first['msg']}); fetch the parts again.") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UndersongError(f"{file} cannot be read ({error}); fetch the parts again.") from error


def hash_files(parts: Path) -> dict[str, str]:
    """Path within the parts -> SHA-256, of every file but the card's own two."""
    files = sorted(file for file in parts.rglob("*") if file.is_file() and file.name not in (CARD, PAGE))
    return {file.relative_to(parts).as_posix(): sha256(file.read_bytes()).hexdigest() for file in files}


def changed_files(parts: Path) -> list[str]:
    """Files that are other than `card.json` says, missing, or there beside; none where there is no card."""
    card = parts / CARD
    if not card.is_file():
        return []
    try:
        told = dict(json.loads(_read_text(card))["files"])
    except (ValueError, KeyError, TypeError) as error:
        raise UndersongError(f"{card} names no files and their hashes ({error}); fetch the parts again.") from error
    there = hash_files(parts)
    return sorted(name for name in told.keys() | there.keys() if told.get(name) != there.get(name))


# --- learned parts ----------------------------------------------------------------------------------------------------
def _heard(parts: Path) -> torch.Tensor:
    tensors = read_tensors(parts / FRONT)
    return tensors.get(HEARD, torch.zeros(1, dtype=torch.long)).long()


def front_names(model: Any) -> list[str]:
    """Tensors of the front end that are learned: the top layers, the tower's norm, the projector without its table."""
    tower = model.model.audio_tower
    layers = range(len(tower.layers) - tower.learned, len(tower.layers))
    top = (f"model.audio_tower.layers.{i}." for i in layers)
    begins = (*top, "model.audio_tower.layer_norm.", "model.multi_modal_projector.")
    return [name for name in model.state_dict() if name.startswith(begins) and name != TABLE]


def put_front(model: Any, file: Path) -> None:
    """Learned tensors in place of the base's.  Errors: others than the network has, another shape."""
    tensors, own = read_tensors(file), model.state_dict()
    wanted = set(front_names(model))
    if odd := sorted(wanted.symmetric_difference(tensors)):
        raise UndersongError(f"{file} does not fit the base weights: {odd[0]} stands on one side only; give their own.")
    for name, value in tensors.items():
        if own[name].shape != value.shape:
            raise UndersongError(f"{file} has another shape of {name}; give the base weights that it was learned on.")
        own[name].copy_(value)


def write_folder(
    model: Any, tokenizer: Any, template: str, window: int, out: Path, remarks: Sequence[str] = ()
) -> None:
    """An ordinary model folder: weights, config, tokenizer, feature extractor, template; and remarks, where there are
    any, for `doctor`: merged weights do not tell what they were merged of."""
    from transformers import WhisperFeatureExtractor

    with mending(out.parent), replacing(out) as part:
        part.mkdir()
        model.save_pretrained(part)
        tokenizer.chat_template = None  # SmolLM2's own adds a system turn and writes no audio
        tokenizer.save_pretrained(part)
        mels = model.config.audio_config.num_mel_bins
        heard = WhisperFeatureExtractor(feature_size=mels, chunk_length=window, return_attention_mask=True)
        heard.save_pretrained(part)
        (part / TEMPLATE).write_text(template, encoding="utf-8")
        if remarks:
            (part / REMARKS).write_text("".join(f"{line}\n" for line in remarks), encoding="utf-8")


def _check_replaceable(out: Path) -> None:
    """UndersongError where `out` is more than an empty folder and no Mini: it would be lost."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    try:
        found = identify(str(out))[2].model_types if out.is_dir() else ()
    except UndersongError:  # no model at all
        found = ()
    if MiniConfig.model_type not in found:
        raise UndersongError(f"{out} holds something else than a Mini; give a new or an empty folder as --out.")
