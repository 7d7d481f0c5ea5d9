"""Stand-ins for Mini's base weights, tiny and random in the layout of the hub, and learned parts that fit them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from undersong.models.mini import assemble, base_weights
from undersong.models.mini.paths import ALIGNED, UNALIGNED

MELS, WIDTH, DIM, LAYERS = 80, 32, 48, 2
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{% if c.type == 'audio' %}<repo_name>"
    "{% else %}{{ c.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerFast:
    """Every byte a token: no word is unknown."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate([*SPECIAL, *letters])}, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens(SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|im_end|>", pad_token="<|im_end|>")


def save_bases(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """Folders of a tiny Whisper and a tiny Llama."""
    torch.manual_seed(seed)
    sides = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in
             {"layers": LAYERS, "attention_heads": 2, "ffn_dim": WIDTH}.items()}  # fmt: skip
    whisper = WhisperForConditionalGeneration(
        WhisperConfig(vocab_size=60, d_model=WIDTH, num_mel_bins=MELS, max_source_positions=400, pad_token_id=0,
                      bos_token_id=1, eos_token_id=2, decoder_start_token_id=1, init_std=0.2, **sides)
    )  # fmt: skip
    whisper.save_pretrained(folder / "whisper")
    words = tokenizer()
    language = LlamaForCausalLM(
        LlamaConfig(vocab_size=len(words), hidden_size=DIM, intermediate_size=64, num_hidden_layers=LAYERS,
                    num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2, tie_word_embeddings=True,
                    max_position_embeddings=1024, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    )  # fmt: skip
    language.save_pretrained(folder / "smollm")
    words.save_pretrained(folder / "smollm")
    return folder / "whisper", folder / "smollm"


def network(folder: Path, heard: Sequence[int], projector: str = "ctc") -> Any:
    """Of the stand-ins, its projector random and sharp enough to hear."""
    encoder, language = (
        base_weights.read_whisper(str(folder / "whisper")),
        base_weights.read_smollm(str(folder / "smollm")),
    )
    words = base_weights.read_tokenizer(str(folder / "smollm"))
    torch.manual_seed(1)
    model = base_weights.build_mini(encoder, language, words, "<repo_name>", 7, projector, torch.tensor(heard), 1)
    made = model.model.multi_modal_projector
    with torch.no_grad():
        for part in made.parameters():
            part.normal_(0, 0.3)
        if projector == "ctc":
            made.log_sharpness.fill_(1.0)
    return model


def parts(folder: Path, base: Path, adapters: bool = True, projector: str = "ctc") -> Path:
    """Learned parts of the stand-ins, in half precision: a front end and two adapters."""
    heard = list(range(10, 60))
    model = network(base, heard, projector)
    folder.mkdir(parents=True)
    own = model.state_dict()
    front = {
        name: own[name].half() if own[name].is_floating_point() else own[name]
        for name in assemble.front_end_names(model)
    }
    save_file(front, folder / assemble.FRONT_END_FILE)
    hashes = {
        "whisper": base_weights.weights_hash(base_weights.read_whisper(str(base / "whisper")).state_dict()),
        "smollm": base_weights.weights_hash(base_weights.read_smollm(str(base / "smollm")).state_dict()),
    }
    merged = {ALIGNED: ["listening", "alignment"], UNALIGNED: ["listening"]} if adapters else {ALIGNED: []}
    note = {
        "window": 7,
        "audio_token": "<repo_name>",
        "projector": projector,
        "learned_layers": 1,
        "adapters": merged,
        **hashes,
    }
    (folder / assemble.PARTS_FILE).write_text(json.dumps(note))
    (folder / assemble.TEMPLATE_FILE).write_text(TEMPLATE)
    for seed, name in enumerate(("listening", "alignment") if adapters else ()):
        _adapter(folder / name, seed)
    return folder


def _adapter(folder: Path, seed: int) -> None:
    """A LoRA of rank 2 on one layer's queries and another's gate."""
    torch.manual_seed(seed)
    places = {"layers.0.self_attn.q_proj": (DIM, DIM), "layers.1.mlp.gate_proj": (64, DIM)}
    tensors = {}
    for path, (out, into) in places.items():
        name = f"base_model.model.model.language_model.{path}"
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = torch.randn(2, into), torch.randn(out, 2)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4}))
