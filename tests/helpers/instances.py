"""A tiny instance of every family, and what transformers (or the network itself) makes of a conversation: the oracle.

Joins the native families' zoo with Kimi-Audio, which transformers does not have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tiny_kimi
import torch
import zoo
from safetensors.torch import load_file
from torch.nn.functional import pad

from undersong.models.kimi.load import kimi_extractor, load_kimi
from undersong.models.kimi.processing import CHAT_TEMPLATE, kimi_audio_inputs, kimi_tokenizer

KIMI = "moonshot_kimia"
KINDS = (*zoo.FAMILIES, KIMI)  # model types
ALONE = ("phi4_multimodal", "qwen3_omni_moe")  # what they hear depends on the lengths of their native batch
MERGED = ("musicflamingo", "audioflamingo3")  # processors that take one clip a text, no more and no less


def save(kind: str, folder: Path, dropout: float = 0.0) -> Path:
    """In the layout of the published checkpoint."""
    return tiny_kimi.save(folder, dropout=dropout) if kind == KIMI else zoo.save(kind, folder, dropout=dropout)


def native(kind: str, folder: Path) -> Any:
    """`.model`, `.audio_token_id` and `.inputs(conversations)`, made without the adapter."""
    made = KimiNative(folder) if kind == KIMI else zoo.native(kind, folder)
    if (folder / "speech-lora").is_dir():
        merge_by_hand(made.model, folder / "speech-lora")
    return made


def merge_by_hand(model: Any, folder: Path) -> None:
    """Phi-4's published adapter for speech: alpha / r times B A on every layer it names."""
    settings, made = (
        json.loads((folder / "adapter_config.json").read_text()),
        load_file(folder / "adapter_model.safetensors"),
    )
    for name, module in model.named_modules():
        for key in [k for k in made if f"{name}.lora_B" in k] if ".layers." in name else []:
            change = made[key] @ made[key.replace("lora_B", "lora_A")]
            module.weight.data += settings["lora_alpha"] / settings["r"] * change
            made.pop(key.replace("lora_B", "lora_A")), made.pop(key)
    assert not made


class KimiNative:
    """The network with its own inputs: windows of both ears, placeholders, left padding."""

    def __init__(self, folder: Path) -> None:
        self.model, self.loading = load_kimi(folder, "float32")
        self.tokenizer, self.extractor = kimi_tokenizer(folder), kimi_extractor(folder)
        self.audio_token_id = self.model.config.kimia_token_offset

    def inputs(self, conversations: Sequence[Sequence[dict[str, Any]]]) -> dict[str, torch.Tensor]:
        rows, sounds = [], []
        for turns in conversations:
            text = self.tokenizer.apply_chat_template(
                turns, chat_template=CHAT_TEMPLATE, tokenize=False, add_generation_prompt=True
            )
            for piece in (c for turn in turns for c in turn["content"] if c["type"] == "audio"):
                made, tokens = kimi_audio_inputs(piece["audio"], self.extractor)
                sounds.append(made)
                text = text.replace("<|audio|>", "<|AUDIO|>" * sum(tokens), 1)
            rows.append(self.tokenizer(text.replace("<|AUDIO|>", "<|audio|>"), add_special_tokens=False)["input_ids"])
        width = max(map(len, rows))
        out = {
            "input_ids": torch.tensor([[self.tokenizer.pad_token_id] * (width - len(r)) + r for r in rows]),
            "attention_mask": torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows]),
        }
        if sounds:
            widest = max(s["code_features"].shape[-1] for s in sounds)
            out["input_features"] = torch.cat([s["input_features"] for s in sounds])
            for name in ("code_features", "code_attention_mask"):
                out[name] = torch.cat([pad(s[name], (0, widest - s[name].shape[-1])) for s in sounds])
        return out


def decoder_input(model: Any, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """(batch, tokens, dim) that layer 0 gets, by a hook of the test's own."""
    seen: list[torch.Tensor] = []

    def look(_module: Any, args: tuple, kwargs: dict) -> None:
        seen.append(args[0] if args else kwargs["hidden_states"])

    hook = model.get_decoder().layers[0].register_forward_pre_hook(look, with_kwargs=True)
    with torch.no_grad():
        model(**inputs)
    hook.remove()
    return seen[0]
