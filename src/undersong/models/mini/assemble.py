"""A Mini model folder out of base weights and learned parts: nothing of the base is shipped, nothing learned is lost.

Parts (a folder): `parts.json`, `front.safetensors` (the tower's top layer and norm, the projector), one standard PEFT
folder an adapter, `chat_template.jinja`.  Knows files and the network; does not know how anything was learned.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from undersong.models.folders import network_errors, split_revision
from undersong.models.merge import merge_published
from undersong.models.mini.network import CTC, MiniConfig, MiniForConditionalGeneration
from undersong.models.mini.place import NAMES
from undersong.models.tensors import read_tensors
from undersong.types import UndersongError

FRONT, NOTE, TEMPLATE = "front.safetensors", "parts.json", "chat_template.jinja"
HEARD, TABLE = "model.multi_modal_projector.heard", "model.multi_modal_projector.table"


class Parts(BaseModel):
    """`parts.json`: what the learned parts were learned with, and which adapters each model has merged, in order."""

    model_config = ConfigDict(extra="forbid")

    window: int  # seconds
    audio_token: str
    projector: str = CTC
    adapters: dict[str, list[str]]
    whisper: str  # hash of the weights that the parts were learned on
    smollm: str


@dataclass(frozen=True)
class Assembled:
    """Where a model was put, and what is to be said of it."""

    folder: Path
    notes: tuple[str, ...] = ()


def assemble(name: str, whisper: str, smollm: str, parts: Path, out: Path) -> Assembled:
    """Writes the folder beside `out` and renames it; a folder that is there is replaced only by a whole one.

    Errors: a name that is none, parts or base weights that cannot be read or do not fit one another.
    """
    note = read_note(parts)
    if name not in note.adapters:
        raise UndersongError(f"{parts} holds no model {name!r}; take one of {', '.join(note.adapters)}.")
    encoder, read, tokenizer = read_whisper(whisper), read_smollm(smollm), read_tokenizer(smollm)
    model = plain_mini(encoder, read, tokenizer, note.audio_token, note.window, note.projector, _heard(parts))
    put_front(model, parts / FRONT)
    for adapter in note.adapters[name]:
        if not merge_published(model, parts, adapter, {}):
            raise UndersongError(f"{parts} holds no adapter {adapter}; fetch the parts again.")
    template = (parts / TEMPLATE).read_text(encoding="utf-8")
    write_folder(model, tokenizer, template, note.window, out)
    measured = {
        "whisper": (note.whisper, weights_hash(encoder.state_dict())),
        "smollm": (note.smollm, weights_hash(read.state_dict())),
    }
    notes = [
        f"The {side} weights are not those that the card's figures were measured with; evaluate before you rely on it."
        for side, (then, now) in measured.items()
        if then != now
    ]  # fmt: skip
    return Assembled(out, tuple(notes))


def read_note(parts: Path) -> Parts:
    """`parts.json`.  Errors: no such folder, a file that is none."""
    file = parts / NOTE
    if not file.is_file():
        raise UndersongError(f"There are no parts of Mini at {parts}; give their folder as --parts.")
    try:
        return Parts.model_validate_json(file.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise UndersongError(f"{file} cannot be read ({error.errors()[0]['msg']}); fetch the parts again.") from error


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, in half precision: the same whether they were kept in single or in half."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].detach().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


# --- base weights -----------------------------------------------------------------------------------------------------
def _options(ref: str) -> tuple[str, dict[str, Any]]:
    if Path(ref).is_dir():
        return ref, {}
    source, revision = split_revision(ref)
    return source, {"revision": revision} if revision else {}


def _read(ref: str, what: str, read: Any, **more: Any) -> Any:
    """`from_pretrained` of safetensors alone, or one sentence."""
    source, options = _options(ref)
    try:
        return read(source, trust_remote_code=False, **options, **more)
    except (*network_errors(), LookupError, TypeError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UndersongError(
            f"No {what} could be read at {ref!r} ({reason}); give a folder, as recipes/mini/base.py makes, or a hub id."
        ) from error


def read_whisper(ref: str) -> Any:
    """Whisper's encoder."""
    from transformers import WhisperModel

    return _read(
        ref, "Whisper model", WhisperModel.from_pretrained, use_safetensors=True, dtype=torch.float32
    ).encoder.eval()


def read_smollm(ref: str) -> Any:
    from transformers import AutoModelForCausalLM

    read = _read(ref, "language model", AutoModelForCausalLM.from_pretrained, use_safetensors=True, dtype=torch.float32)
    if not read.config.tie_word_embeddings:
        raise UndersongError(
            f"{ref} has a head of its own, and Mini one matrix for both; give SmolLM2-135M or its like."
        )
    return read.eval()


def read_tokenizer(ref: str) -> Any:
    from transformers import AutoTokenizer

    return _read(ref, "tokenizer", AutoTokenizer.from_pretrained)


def plain_mini(
    encoder: Any, language: Any, tokenizer: Any, audio_token: str, window: int, projector: str, heard: torch.Tensor
) -> MiniForConditionalGeneration:
    """The network of base weights alone, its projector untrained; `heard`: ids of the projector's table."""
    token = tokenizer.convert_tokens_to_ids(audio_token)
    if token is None or token == tokenizer.unk_token_id:
        raise UndersongError(f"The tokenizer has no token {audio_token}, which stands for audio; give SmolLM2's.")
    theirs, own = encoder.config, language.config.to_dict()
    tower = {
        "model_type": "audioflamingo3_encoder", "num_mel_bins": theirs.num_mel_bins, "hidden_size": theirs.d_model,
        "num_hidden_layers": theirs.encoder_layers, "num_attention_heads": theirs.encoder_attention_heads,
        "intermediate_size": theirs.encoder_ffn_dim, "max_source_positions": 50 * window,
    }  # fmt: skip
    left_out = ("_name_or_path", "architectures", "transformers_version", "dtype")
    text = {key: value for key, value in own.items() if key not in left_out}
    model = MiniForConditionalGeneration(
        MiniConfig(
            audio_config=tower, text_config=text, audio_token_id=token, projector=projector, heard_tokens=len(heard),
            tie_word_embeddings=True,
        )
    ).eval()  # fmt: skip
    state = encoder.state_dict()
    positions = state["embed_positions.weight"]
    if len(positions) < 50 * window:
        raise UndersongError(
            f"The Whisper model has {len(positions)} positions, too few for {window} s; give a whole one."
        )
    _fill(model.model.audio_tower, state | {"embed_positions.weight": positions[: 50 * window]}, "Whisper encoder")
    _fill(model.model.language_model, language.model.state_dict(), "language model")
    put_table(model, heard)
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for name, value in ends.items():
        setattr(model.generation_config, name, value)
    return model


def _fill(module: torch.nn.Module, state: dict[str, torch.Tensor], what: str) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise UndersongError(f"The {what} does not fill Mini ({reason}); give weights of that architecture.") from error


def put_table(model: MiniForConditionalGeneration, heard: torch.Tensor) -> None:
    """The decoder's own embeddings of the tokens that speech was learned with, into the projector."""
    projector = model.model.multi_modal_projector
    if model.config.projector != CTC:
        return
    rows = model.get_input_embeddings().weight.data
    if len(heard) and int(heard.max()) >= len(rows):
        raise UndersongError(
            f"The parts hear token {int(heard.max())}, and the language model has {len(rows)}; give its own."
        )
    projector.heard.copy_(heard)
    projector.table.copy_(rows[heard])


# --- learned parts ----------------------------------------------------------------------------------------------------
def _heard(parts: Path) -> torch.Tensor:
    tensors = read_tensors(parts / FRONT)
    return tensors.get(HEARD, torch.zeros(1, dtype=torch.long)).long()


def front_names(model: MiniForConditionalGeneration) -> list[str]:
    """Tensors of the front end that are learned: the top layer, the tower's norm, the projector without its table."""
    top = f"model.audio_tower.layers.{len(model.model.audio_tower.layers) - 1}."
    begins = (top, "model.audio_tower.layer_norm.", "model.multi_modal_projector.")
    return [name for name in model.state_dict() if name.startswith(begins) and name != TABLE]


def put_front(model: MiniForConditionalGeneration, file: Path) -> None:
    """Learned tensors in place of the base's.  Errors: others than the network has, another shape."""
    tensors, own = read_tensors(file), model.state_dict()
    wanted = set(front_names(model))
    if odd := sorted(wanted.symmetric_difference(tensors)):
        raise UndersongError(f"{file} does not fit the base weights: {odd[0]} stands on one side only; give their own.")
    for name, value in tensors.items():
        if own[name].shape != value.shape:
            raise UndersongError(f"{file} has another shape of {name}; give the base weights that it was learned on.")
        own[name].copy_(value)


def write_folder(model: MiniForConditionalGeneration, tokenizer: Any, template: str, window: int, out: Path) -> None:
    """An ordinary model folder: weights, config, tokenizer, feature extractor, template."""
    from transformers import WhisperFeatureExtractor

    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer.chat_template = None  # SmolLM2's own adds a system turn and writes no audio
    tokenizer.save_pretrained(part)
    mels = model.config.audio_config.num_mel_bins
    WhisperFeatureExtractor(feature_size=mels, chunk_length=window, return_attention_mask=True).save_pretrained(part)
    (part / TEMPLATE).write_text(template, encoding="utf-8")
    if out.exists():
        old = out.with_name(f"{out.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        out.rename(old)
        part.rename(out)
        shutil.rmtree(old)
    else:
        part.rename(out)


__all__ = ["NAMES", "Assembled", "Parts", "assemble"]
