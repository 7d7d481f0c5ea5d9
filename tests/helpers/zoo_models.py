"""Tiny networks of every family as their published checkpoints lay them out on disk; knows no processor.

Weights are far larger than transformers' own beginning, so that different prompts get different replies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
import zoo_published
from safetensors.torch import load_file, save_file
from zoo_text import MELS, WINDOW

from undersong.models.mini.base_weights import load_token_table
from undersong.models.mini.network import MiniConfig, MiniForConditionalGeneration

DIM, LAYERS, WIDE = 32, 2, 0.2
POSITIONS = 50 * WINDOW  # tower positions of a window
DECODER = {"hidden_size": DIM, "intermediate_size": 2 * DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
DECODER |= {"num_key_value_heads": 2, "initializer_range": WIDE, "max_position_embeddings": 2048}
MROPE = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 1, 1]}  # sums to half a head of 8


def _tokens(ids: Mapping[str, int], pad: str, eos: str) -> dict[str, Any]:
    return {"vocab_size": len(ids), "pad_token_id": ids[pad], "eos_token_id": ids[eos], "bos_token_id": None}


def _tower(kind: str, dropout: float, **more: Any) -> dict[str, Any]:
    shape = {"hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": 4, "intermediate_size": DIM}
    shape |= {"num_mel_bins": MELS, "max_source_positions": POSITIONS, "initializer_range": WIDE, "dropout": dropout}
    return {"model_type": kind, **shape, **more}


def _omni_tower(kind: str, dropout: float, **more: Any) -> dict[str, Any]:
    shape = {"d_model": DIM, "encoder_layers": LAYERS, "encoder_attention_heads": 4, "encoder_ffn_dim": DIM}
    shape |= {"num_mel_bins": MELS, "output_dim": DIM, "initializer_range": WIDE, "dropout": dropout}
    return {"model_type": kind, **shape, **more}


def audioflamingo3(ids: Mapping[str, int], dropout: float) -> Any:
    text = {"model_type": "qwen2", **DECODER, **_tokens(ids, "<|endoftext|>", "<|im_end|>")}
    return transformers.AudioFlamingo3ForConditionalGeneration(
        transformers.AudioFlamingo3Config(
            audio_config=_tower("audioflamingo3_encoder", dropout),
            text_config=text,
            audio_token_id=ids["<sound>"],
            initializer_range=WIDE,
        )
    )


def undersong_mini(ids: Mapping[str, int], dropout: float) -> Any:
    """Random like the others, but for its projector, which would hear nothing: sharp, and its table filled."""
    text = {"model_type": "llama", **DECODER, **_tokens(ids, "<|endoftext|>", "<|im_end|>")}
    heard = sorted(i for word, i in ids.items() if not word.startswith("<"))
    model = MiniForConditionalGeneration(
        MiniConfig(
            audio_config=_tower("audioflamingo3_encoder", dropout),
            text_config=text,
            audio_token_id=ids["<repo_name>"],
            heard_tokens=len(heard),
            initializer_range=WIDE,
            tie_word_embeddings=True,
        )
    )
    load_token_table(model, torch.tensor(heard))
    projector = model.model.multi_modal_projector
    projector.blank.data.normal_(0, WIDE)
    projector.log_sharpness.data.fill_(2.0)
    return model


def musicflamingo(ids: Mapping[str, int], dropout: float) -> Any:
    text = {"model_type": "qwen2", **DECODER, **_tokens(ids, "<|endoftext|>", "<|im_end|>")}
    return transformers.MusicFlamingoForConditionalGeneration(
        transformers.MusicFlamingoConfig(
            audio_config=_tower("audioflamingo3_encoder", dropout),
            text_config=text,
            audio_token_id=ids["<sound>"],
            audio_bos_token_id=ids["<|sound_bos|>"],
            audio_eos_token_id=ids["<|sound_eos|>"],
            initializer_range=WIDE,
        )
    )


def qwen2_audio(ids: Mapping[str, int], dropout: float) -> Any:
    text = {"model_type": "qwen2", **DECODER, **_tokens(ids, "<|endoftext|>", "<|im_end|>")}
    tower = _omni_tower("qwen2_audio_encoder", dropout, max_source_positions=POSITIONS)
    del tower["output_dim"]
    return transformers.Qwen2AudioForConditionalGeneration(
        transformers.Qwen2AudioConfig(
            audio_config=tower, text_config=text, audio_token_index=ids["<|AUDIO|>"], initializer_range=WIDE
        )
    )


def voxtral(ids: Mapping[str, int], dropout: float) -> Any:
    config = zoo_published.with_initializer_range(zoo_published.config("voxtral", ids, dropout), WIDE)
    model = transformers.VoxtralForConditionalGeneration(transformers.VoxtralConfig.from_dict(config))
    model.generation_config.pad_token_id = ids["<pad>"]  # as the published checkpoint's converter sets it
    return model


def qwen2_5_omni(ids: Mapping[str, int], dropout: float) -> Any:
    vision = {"depth": 1, "hidden_size": DIM, "intermediate_size": DIM, "num_heads": 2, "out_hidden_size": DIM}
    text = {"model_type": "qwen2_5_omni_text", **DECODER, "rope_parameters": MROPE, "tie_word_embeddings": False}
    return transformers.Qwen2_5OmniThinkerForConditionalGeneration(
        transformers.Qwen2_5OmniThinkerConfig(
            audio_config=_omni_tower("qwen2_5_omni_audio_encoder", dropout, n_window=100),
            vision_config={**vision, "fullatt_block_indexes": [0]},
            text_config={**text, **_tokens(ids, "<|endoftext|>", "<|im_end|>")},
            audio_token_index=ids["<|AUDIO|>"],
            image_token_index=ids["<|IMAGE|>"],
            video_token_index=ids["<|VIDEO|>"],
            audio_start_token_id=ids["<|audio_bos|>"],
            audio_end_token_id=ids["<|audio_eos|>"],
            vision_start_token_id=ids["<|vision_bos|>"],
            vision_end_token_id=ids["<|vision_eos|>"],
            initializer_range=WIDE,
        )
    )


def qwen3_omni_moe(ids: Mapping[str, int], dropout: float) -> Any:
    config = zoo_published.with_initializer_range(zoo_published.config("qwen3_omni_moe", ids, dropout), WIDE)
    whole = transformers.Qwen3OmniMoeConfig.from_dict(config)
    return transformers.Qwen3OmniMoeThinkerForConditionalGeneration(whole.thinker_config)


def phi4_multimodal(ids: Mapping[str, int], dropout: float) -> Any:
    audio = {"hidden_size": DIM, "intermediate_size": DIM, "num_blocks": LAYERS, "num_attention_heads": 4}
    audio |= {"ext_pw_out_channel": DIM, "depthwise_separable_out_channel": DIM, "nemo_conv_channels": 16}
    audio |= {"input_size": 80, "audio_token_id": ids["<|audio|>"], "dropout_rate": dropout, "initializer_range": WIDE}
    vision = {"hidden_size": DIM, "intermediate_size": DIM, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision |= {"image_size": 56, "crop_size": 56, "image_token_id": ids["<|image|>"]}
    return transformers.Phi4MultimodalForCausalLM(
        transformers.Phi4MultimodalConfig(
            **DECODER,
            **_tokens(ids, "<|endoftext|>", "<|end|>"),
            tie_word_embeddings=True,
            audio_config=audio,
            vision_config=vision,
        )
    )


BUILD = {
    "undersong_mini": undersong_mini,
    "audioflamingo3": audioflamingo3,
    "musicflamingo": musicflamingo,
    "qwen2_5_omni": qwen2_5_omni,
    "qwen2_audio": qwen2_audio,
    "qwen3_omni_moe": qwen3_omni_moe,
    "voxtral": voxtral,
    "phi4_multimodal": phi4_multimodal,
}


def write_published_config(family: str, folder: Path, ids: Mapping[str, int], dropout: float) -> None:
    """Write the published config with shrunk sizes over the one that transformers has saved, where there is one."""
    if family in zoo_published.FILES:
        config = zoo_published.config(family, ids, dropout)
        (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))


def _rewrite(folder: Path, prefix: str, more: Mapping[str, torch.Tensor], config: Any) -> None:
    """Put the saved thinker under its name inside the whole checkpoint."""
    weights = {f"{prefix}{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**weights, **more}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True))


def _whole_omni2(folder: Path, seed: int) -> None:
    thinker = json.loads((folder / "config.json").read_text())
    config = transformers.Qwen2_5OmniConfig(thinker_config=thinker).to_dict()
    more = {"talker.thinker_to_talker_proj.bias": torch.zeros(4), "talker.codec_head.weight": torch.ones(4, 4)}
    more["token2wav.code2wav_bigvgan_model.conv_post.weight"] = torch.ones(1, 4, 3)
    _rewrite(folder, "thinker.", more, {**config, "architectures": ["Qwen2_5OmniModel"]})


def _whole_omni3(folder: Path, seed: int) -> None:
    more = {"talker.text_projection.linear_fc1.bias": torch.zeros(4), "talker.codec_head.weight": torch.ones(4, 4)}
    more["code2wav.code_embedding.weight"] = torch.ones(4, 4)
    _rewrite(folder, "thinker.", more, json.loads((folder / "config.json").read_text()))


def _adapters(folder: Path, seed: int) -> None:
    """The PEFT folders beside Phi-4's weights, which loading the model passes by; targets named from inside `model`."""
    weights = load_file(folder / "model.safetensors")
    linears = [n for n in weights if re.fullmatch(rf"model\.{PHI4_TARGETS}\.weight", n)]
    for kind, rank in (("speech", 4), ("vision", 2)):
        random = torch.Generator().manual_seed(seed + rank)
        made: dict[str, torch.Tensor] = {}
        for name in linears:
            path, (wide, deep) = f"base_model.model.{name.removesuffix('.weight')}", weights[name].shape
            made[f"{path}.lora_A.weight"] = torch.randn(rank, deep, generator=random) / deep**0.5
            made[f"{path}.lora_B.weight"] = torch.randn(wide, rank, generator=random) / 10
        settings = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}
        settings |= {"target_modules": PHI4_TARGETS, "lora_dropout": 0.01, "base_model_name_or_path": None}
        (folder / f"{kind}-lora").mkdir(exist_ok=True)
        save_file(made, folder / f"{kind}-lora" / "adapter_model.safetensors", metadata={"format": "pt"})
        (folder / f"{kind}-lora" / "adapter_config.json").write_text(json.dumps(settings, indent=1, sort_keys=True))


PHI4_TARGETS = r"((layers.*self_attn\.(qkv|o)_proj)|(layers.*mlp\.(gate_up|down)_proj))"
FINISH = {"phi4_multimodal": _adapters, "qwen2_5_omni": _whole_omni2, "qwen3_omni_moe": _whole_omni3}
