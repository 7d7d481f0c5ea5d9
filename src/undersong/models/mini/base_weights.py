"""Base weights of Mini (Whisper, SmolLM2), and a Mini built of them with an untrained projector."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from undersong.escaping import describe_error
from undersong.models.hub_files import hub_errors
from undersong.models.mini.network import CTC, MiniConfig, MiniForConditionalGeneration
from undersong.models.pretrained import SAFE_LOADING, load_pretrained
from undersong.models.refs import split_revision
from undersong.types import UndersongError


def weights_hash(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 of tensors by name, in half precision, so that float32 and float16 copies have the same hash."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(f"{name} {tuple(state[name].shape)}\n".encode())
        digest.update(state[name].detach().half().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _hub_options(ref: str) -> tuple[str, dict[str, Any]]:
    if Path(ref).is_dir():
        return ref, {}
    source, revision = split_revision(ref)
    return source, {"revision": revision} if revision else {}


def _load_base(ref: str, description: str, from_pretrained: Any, **extra_options: Any) -> Any:
    """Load a part by its `from_pretrained`; errors become one sentence."""
    source, options = _hub_options(ref)
    unreadable: tuple[type[Exception], ...] = (*hub_errors(), LookupError, TypeError, RuntimeError)
    try:
        return load_pretrained(from_pretrained, source, ref, **options, **extra_options)
    except unreadable as error:
        reason = describe_error(error)
        raise UndersongError(
            f"No {description} could be read at {ref!r} ({reason}); give a folder or a hub id, or --from-packages."
        ) from error


def _load_weights(ref: str, description: str, model_class: Any, prefix: str = "") -> Any:
    """Load a model in float32 and check for missing tensors under `prefix`, which transformers would fill at random."""
    load_options = {**SAFE_LOADING, "dtype": torch.float32, "output_loading_info": True}
    model, info = _load_base(ref, description, model_class.from_pretrained, **load_options)
    if missing := sorted(name for name in info["missing_keys"] if name.startswith(prefix)):
        raise UndersongError(
            f"The {description} at {ref!r} lacks {missing[0]} ({len(missing)} such); give a whole one, and each option "
            "its own."
        )
    return model


def read_whisper(ref: str) -> Any:
    """Load the encoder of a Whisper model in float32. Raises UndersongError for another or an incomplete model."""
    from transformers import WhisperModel

    return _load_weights(ref, "Whisper model", WhisperModel, "encoder.").encoder.eval()


def read_smollm(ref: str) -> Any:
    """Load a language model in float32. Raises UndersongError if it is unreadable, incomplete, or has its own head."""
    from transformers import AutoModelForCausalLM

    model = _load_weights(ref, "language model", AutoModelForCausalLM)
    if not model.config.tie_word_embeddings:
        raise UndersongError(
            f"{ref} has a separate head, and Mini one matrix for both; give SmolLM2-135M or a similar model."
        )
    return model.eval()


def read_tokenizer(ref: str) -> Any:
    """Load the tokenizer of a folder or Hugging Face id."""
    from transformers import AutoTokenizer

    return _load_base(ref, "tokenizer", AutoTokenizer.from_pretrained)


def build_mini(
    encoder: Any,
    language_model: Any,
    tokenizer: Any,
    audio_token: str,
    window: int,
    projector: str,
    heard_ids: torch.Tensor,
    learned_layers: int,
) -> Any:
    """Build the network from base weights, with an untrained projector.

    Args:
        encoder: Whisper's encoder.
        language_model: The language model.
        tokenizer: Its tokenizer.
        audio_token: The placeholder.
        window: Seconds of a window.
        projector: `ctc` or `af3`.
        heard_ids: Token ids of the projector's table.
        learned_layers: Number of the audio encoder's top layers that are loaded later.

    Raises:
        UndersongError: An unknown placeholder, or base weights that do not fit.
    """
    token = tokenizer.convert_tokens_to_ids(audio_token)
    if token is None or token == tokenizer.unk_token_id:
        raise UndersongError(f"The tokenizer has no token {audio_token}, which stands for audio; give SmolLM2's.")
    whisper_config, language_config = encoder.config, language_model.config.to_dict()
    audio_config = {
        "model_type": "audioflamingo3_encoder",
        "num_mel_bins": whisper_config.num_mel_bins,
        "hidden_size": whisper_config.d_model,
        "num_hidden_layers": whisper_config.encoder_layers,
        "num_attention_heads": whisper_config.encoder_attention_heads,
        "intermediate_size": whisper_config.encoder_ffn_dim,
        "max_source_positions": 50 * window,
    }
    omitted = ("_name_or_path", "architectures", "transformers_version", "dtype")
    text_config = {key: value for key, value in language_config.items() if key not in omitted}
    config: dict[str, Any] = {"audio_config": audio_config, "text_config": text_config, "audio_token_id": token}
    config |= {"projector": projector, "heard_tokens": len(heard_ids), "tie_word_embeddings": True}
    config |= {"learned_layers": learned_layers}
    model: Any = MiniForConditionalGeneration(MiniConfig(**config)).eval()
    state = encoder.state_dict()
    positions = state["embed_positions.weight"]
    if len(positions) < 50 * window:
        raise UndersongError(
            f"The Whisper model has {len(positions)} positions, too few for {window} s; give a whole one."
        )
    _fill_module(
        model.model.audio_tower, state | {"embed_positions.weight": positions[: 50 * window]}, "Whisper encoder"
    )
    _fill_module(model.model.language_model, language_model.model.state_dict(), "language model")
    load_token_table(model, heard_ids)
    special_ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    for name, value in special_ids.items():
        setattr(model.generation_config, name, value)
    return model


def _fill_module(module: torch.nn.Module, state: dict[str, torch.Tensor], description: str) -> None:
    try:
        module.load_state_dict(state, strict=True)
    except RuntimeError as error:
        reason = describe_error(error)
        raise UndersongError(
            f"The {description} does not fill Mini ({reason}); give weights of that architecture."
        ) from error


def load_token_table(model: Any, heard_ids: torch.Tensor) -> None:
    """Copy the decoder's embeddings of the tokens of the training speech to the projector."""
    projector = model.model.multi_modal_projector
    if model.config.projector != CTC:
        return
    rows = model.get_input_embeddings().weight.data
    if len(heard_ids) and int(heard_ids.max()) >= len(rows):
        raise UndersongError(
            f"The parts use token {int(heard_ids.max())}, and the language model has {len(rows)}; give its own."
        )
    projector.heard.copy_(heard_ids)
    projector.table.copy_(rows[heard_ids])
