"""A tiny instance of every family, saved as the hub lays it out, and each family as transformers alone runs it.

The oracles of what the one adapter builds itself; knows no adapter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import zoo_models
import zoo_native
from zoo_text import RATE, TEMPLATES, WINDOW, tokenizer, whisper

CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
OMNI2 = {"audio_token": "<|AUDIO|>", "audio_bos_token": "<|audio_bos|>", "audio_eos_token": "<|audio_eos|>"}
OMNI2 |= {"image_token": "<|IMAGE|>", "video_token": "<|VIDEO|>"}
OMNI2 |= {"vision_bos_token": "<|vision_bos|>", "vision_eos_token": "<|vision_eos|>"}
OMNI3 = {"audio_token": "<|audio_pad|>", "audio_bos_token": "<|audio_start|>", "audio_eos_token": "<|audio_end|>"}
OMNI3 |= {"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"}
OMNI3 |= {"vision_bos_token": "<|vision_start|>", "vision_eos_token": "<|vision_end|>"}
# Tekken's control tokens: its 24 and 25 are what VoxtralProcessor takes for [AUDIO] and [BEGIN_AUDIO] without asking
TEKKEN = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, 11)), "<pad>"]
TEKKEN += [*(f"<SPECIAL_{i}>" for i in range(12, 17)), "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
TEKKEN += [*(f"<SPECIAL_{i}>" for i in range(19, 24)), "[AUDIO]", "[BEGIN_AUDIO]"]


@dataclass(frozen=True)
class Layout:
    """What `save` and `native` need to know of a family, and what a test may want to."""

    special: Sequence[str]  # in the order of their ids
    audio: str  # the placeholder
    pad: str = "<|endoftext|>"
    eos: str = "<|im_end|>"
    named: Mapping[str, str] = field(default_factory=dict)
    template: str = "chat_template.jinja"  # the file that holds it
    window: float = WINDOW  # seconds of one pass of the tower; a longer clip is cut there unless `windows`
    windows: bool = False  # whether a longer clip is heard in several windows
    longest: float = WINDOW  # seconds natively heard before the rest is dropped; inf where nothing is
    first_seed: int = 0  # one whose replies differ and are no single token over and over


CLIPPED = 15 * WINDOW  # of extractors whose chunk_length is no window: 300 s where the windows are 30 s
LAYOUTS = {
    "audioflamingo3": Layout([*CHATML, "<sound>"], "<sound>", windows=True, longest=20 * WINDOW),
    "undersong_mini": Layout([*CHATML, "<repo_name>"], "<repo_name>", first_seed=9),
    "qwen2_5_omni": Layout(
        [*CHATML, *OMNI2.values()],
        "<|AUDIO|>",
        named=OMNI2,
        template="chat_template.json",
        window=CLIPPED,
        longest=CLIPPED,
    ),
    "qwen2_audio": Layout(
        [*CHATML, "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>"],
        "<|AUDIO|>",
        template="tokenizer_config.json",
        first_seed=5,
    ),
    "musicflamingo": Layout(
        [*CHATML, "<sound>", "<|sound_bos|>", "<|sound_eos|>"], "<sound>", windows=True, longest=40 * WINDOW
    ),
    "voxtral": Layout(TEKKEN, "[AUDIO]", "<pad>", "</s>", windows=True, longest=float("inf"), first_seed=4),
    "phi4_multimodal": Layout(
        ["<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|audio|>", "<|image|>"],
        "<|audio|>",
        eos="<|end|>",
        named={"audio_token": "<|audio|>", "image_token": "<|image|>"},
        window=float("inf"),
        longest=float("inf"),
        first_seed=3,
    ),
    "qwen3_omni_moe": Layout(
        [*CHATML, *OMNI3.values()],
        "<|audio_pad|>",
        named=OMNI3,
        template="chat_template.json",
        window=float("inf"),
        longest=float("inf"),
        first_seed=18,
    ),
}
FAMILIES = tuple(LAYOUTS)
PICTURES = {"qwen2_5_omni": "Qwen2VLImageProcessor", "qwen3_omni_moe": "Qwen2VLImageProcessor"}
PICTURES |= {"phi4_multimodal": "Phi4MultimodalImageProcessor"}
NATIVE_NEEDS = zoo_native.NEEDS


@dataclass(frozen=True)
class Tiny:
    """One saved instance."""

    family: str
    folder: Path
    layout: Layout

    @property
    def window(self) -> float:
        """Seconds of one pass of the tower."""
        return self.layout.window


def tiny(family: str, folder: Path, *, dropout: float = 0.0, seed: int = 0) -> Tiny:
    """`save`, with what is known of the family."""
    return Tiny(family, save(family, folder, dropout=dropout, seed=seed), LAYOUTS[family])


def save(family: str, folder: Path, *, dropout: float = 0.0, seed: int = 0) -> Path:
    """Write a random instance with the files, names and keys of the published checkpoint."""
    layout = LAYOUTS[family]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    words = tokenizer(layout.special, layout.pad, layout.eos, layout.named)
    torch.manual_seed(layout.first_seed + seed)
    zoo_models.BUILD[family](words.get_vocab(), dropout).save_pretrained(folder)
    zoo_models.write_published_config(family, folder, words.get_vocab(), dropout)
    if layout.template == "tokenizer_config.json":
        words.chat_template = TEMPLATES[family]
    words.save_pretrained(folder, save_jinja_files=False)
    if layout.template == "chat_template.jinja":
        (folder / layout.template).write_text(TEMPLATES[family])
    elif layout.template == "chat_template.json":  # only a processor reads this one; a tokenizer does not
        (folder / layout.template).write_text(json.dumps({"chat_template": TEMPLATES[family]}))
    _save_extractor(family, folder)
    if finish := zoo_models.FINISH.get(family):
        finish(folder, layout.first_seed + seed)
    return folder


def _save_extractor(family: str, folder: Path) -> None:
    """Where the hub has it: in the processor's file, or in one it shares with the picture processor's type."""
    made = extractor(family)
    if family == "musicflamingo":
        inside = {"feature_extractor": made.to_dict(), "processor_class": "MusicFlamingoProcessor"}
        (folder / "processor_config.json").write_text(json.dumps(inside, indent=1, sort_keys=True))
        return
    made.save_pretrained(folder)
    if family in PICTURES:
        file = folder / "preprocessor_config.json"
        file.write_text(
            json.dumps({**json.loads(file.read_text()), "image_processor_type": PICTURES[family]}, indent=1)
        )


def extractor(family: str) -> Any:
    """The family's feature extractor with few mels and a short window."""
    if family == "phi4_multimodal":
        return transformers.Phi4MultimodalFeatureExtractor()
    return whisper(CLIPPED if family.endswith(("omni", "omni_moe")) else WINDOW)


def native(family: str, folder: Path) -> zoo_native.Native:
    """The saved instance as transformers alone loads and feeds it."""
    return zoo_native.load(family, folder, LAYOUTS[family].audio)


def wave(seconds: float, seed: int = 0) -> np.ndarray:
    """(samples,) float32: a tone of its own with some noise."""
    return samples(round(RATE * seconds), seed)


def samples(count: int, seed: int = 0) -> np.ndarray:
    """(count,) float32: as `wave`, by number of samples."""
    rng = np.random.default_rng(seed)
    time = np.arange(count) / RATE
    return (0.3 * np.sin(2 * np.pi * (200 + 130 * seed) * time) + 0.05 * rng.standard_normal(count)).astype(np.float32)


def ask(*said: str | np.ndarray, system: str | None = "you are a helpful assistant") -> list[dict[str, Any]]:
    """A conversation: texts and clips the user says, after the system's text."""
    content = [{"type": "text", "text": s} if isinstance(s, str) else {"type": "audio", "audio": s} for s in said]
    turns = [{"role": "system", "content": [{"type": "text", "text": system}]}] if system else []
    return [*turns, {"role": "user", "content": content}]
