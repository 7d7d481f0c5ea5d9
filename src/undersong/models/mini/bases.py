"""Base weights read, and a Mini of them alone: what every learned part is put into.  Knows transformers' loading."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from undersong.models.folders import network_errors, split_revision
from undersong.models.mini.network import CTC, MiniConfig, MiniForConditionalGeneration
from undersong.types import UndersongError


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, in half precision: the same whether they were kept in single or in half."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].detach().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _options(ref: str) -> tuple[str, dict[str, Any]]:
    if Path(ref).is_dir():
        return ref, {}
    source, revision = split_revision(ref)
    return source, {"revision": revision} if revision else {}


def _read(ref: str, what: str, read: Any, **more: Any) -> Any:
    """`from_pretrained` of safetensors alone, or one sentence."""
    source, options = _options(ref)
    unreadable: tuple[type[Exception], ...] = (*network_errors(), LookupError, TypeError, RuntimeError)
    try:
        return read(source, trust_remote_code=False, **options, **more)
    except unreadable as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise UndersongError(
            f"No {what} could be read at {ref!r} ({reason}); give a folder (recipes/mini makes one) or a hub id."
        ) from error


def _read_weights(ref: str, what: str, made: Any, part: str = "") -> Any:
    """The model in float32, every tensor of `part` out of the file: transformers fills in what is missing by chance."""
    more = {"use_safetensors": True, "dtype": torch.float32, "output_loading_info": True}
    read, info = _read(ref, what, made.from_pretrained, **more)
    if lost := sorted(name for name in info["missing_keys"] if name.startswith(part)):
        raise UndersongError(
            f"The {what} at {ref!r} lacks {lost[0]} ({len(lost)} such); give a whole one, and each option its own."
        )
    return read


def read_whisper(ref: str) -> Any:
    """The encoder of a Whisper of a hub id or folder, in float32.  UndersongError where it is none, or not whole."""
    from transformers import WhisperModel

    return _read_weights(ref, "Whisper model", WhisperModel, "encoder.").encoder.eval()


def read_smollm(ref: str) -> Any:
    """The language model of a hub id or folder, in float32.  UndersongError where it is none, is not whole, or its head
    is not its embeddings."""
    from transformers import AutoModelForCausalLM

    read = _read_weights(ref, "language model", AutoModelForCausalLM)
    if not read.config.tie_word_embeddings:
        raise UndersongError(
            f"{ref} has a head of its own, and Mini one matrix for both; give SmolLM2-135M or its like."
        )
    return read.eval()


def read_tokenizer(ref: str) -> Any:
    """The tokenizer of a hub id or folder."""
    from transformers import AutoTokenizer

    return _read(ref, "tokenizer", AutoTokenizer.from_pretrained)


def plain_mini(
    encoder: Any,
    language: Any,
    tokenizer: Any,
    audio_token: str,
    window: int,
    projector: str,
    heard: torch.Tensor,
    learned_layers: int,
) -> Any:
    """The network of base weights alone, its projector untrained; `heard`: ids of the projector's table;
    `learned_layers`: of the tower, for others to put in."""
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
    config: dict[str, Any] = {"audio_config": tower, "text_config": text, "audio_token_id": token}
    config |= {"projector": projector, "heard_tokens": len(heard), "tie_word_embeddings": True}
    config |= {"learned_layers": learned_layers}
    model: Any = MiniForConditionalGeneration(MiniConfig(**config)).eval()
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


def put_table(model: Any, heard: torch.Tensor) -> None:
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
