"""A tiny Voxtral with the one tokenizer file its hub repository has, tekken.json, and no chat template; knows no other.

transformers reads that file itself; mistral-common, where it is installed, reads it too and makes the ids to compare.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch
import zoo_models
from zoo_text import RATE, WINDOW, WORDS, whisper

# ids 0 to 36 of the published file, as mistral-common asks for them by name
CONTROL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS] "
)
CONTROL += (
    "[IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT] "
)
CONTROL += "<SPECIAL_20> <SPECIAL_21> <SPECIAL_22> <SPECIAL_23> [AUDIO] [BEGIN_AUDIO] <SPECIAL_26> <SPECIAL_27> "
CONTROL += "<SPECIAL_28> <SPECIAL_29> <SPECIAL_30> <SPECIAL_31> [ARGS] [CALL_ID] [THINK] [/THINK] [TRANSCRIBE]"
SPLIT = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tekken(version: str) -> dict[str, Any]:
    """The content of a tekken.json with all bytes and the words of the zoo; a word's beginnings are its merges."""
    pieces = [bytes([i]) for i in range(256)]
    for word in WORDS:
        for text in (word.encode(), b" " + word.encode()):
            pieces += [text[:k] for k in range(2, len(text) + 1) if text[:k] not in pieces]
    control = CONTROL.split()
    return {
        "config": {
            "pattern": SPLIT,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": len(pieces) + len(control),
            "default_num_special_tokens": len(control),
            "version": version,
        },
        "vocab": [
            {"rank": i, "token_bytes": base64.b64encode(p).decode(), "token_str": p.decode("utf-8", "replace")}
            for i, p in enumerate(pieces)
        ],
        "special_tokens": [{"rank": i, "token_str": text, "is_control": True} for i, text in enumerate(control)],
        "audio": {
            "sampling_rate": RATE,
            "frame_rate": 12.5,
            "audio_encoding_config": {"num_mel_bins": 16, "hop_length": 160, "window_size": 400},
            "chunk_length_s": float(WINDOW),
        },
    }


def save(folder: Path, *, version: str = "v7", dropout: float = 0.0, seed: int = 0) -> Path:
    """The files of the hub; before version v11 mistral-common refuses a system text beside a clip, as published."""
    folder = Path(folder)
    made, names = tekken(version), CONTROL.split()
    names += [f"piece {i}" for i in range(len(made["vocab"]))]
    ids = {name: i for i, name in enumerate(names)}
    torch.manual_seed(seed)
    zoo_models.voxtral(ids, dropout).save_pretrained(folder)
    zoo_models.write_published_config("voxtral", folder, ids, dropout)
    whisper().save_pretrained(folder)
    (folder / "tekken.json").write_text(json.dumps(made))
    return folder
