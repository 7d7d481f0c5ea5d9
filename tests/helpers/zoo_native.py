"""Each family as transformers alone loads it, with its own processor or, where that needs packages, what stands in.

Knows no tiny network: it reads a folder.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from transformers.processing_utils import ProcessorMixin
from zoo_text import PHI4_WITH_AUDIO

from undersong.models.mini.network import MiniForConditionalGeneration

CLASSES = {
    "audioflamingo3": "AudioFlamingo3ForConditionalGeneration",
    "undersong_mini": "",  # the package's own class
    "musicflamingo": "MusicFlamingoForConditionalGeneration",
    "qwen2_5_omni": "Qwen2_5OmniThinkerForConditionalGeneration",
    "qwen2_audio": "Qwen2AudioForConditionalGeneration",
    "qwen3_omni_moe": "Qwen3OmniMoeThinkerForConditionalGeneration",
    "voxtral": "VoxtralForConditionalGeneration",
    "phi4_multimodal": "Phi4MultimodalForCausalLM",
}
# import names of what the family's own processor needs beside transformers
NEEDS: dict[str, tuple[str, ...]] = {
    "audioflamingo3": (),
    "undersong_mini": (),
    "musicflamingo": (),
    "qwen2_5_omni": ("PIL", "torchvision"),
    "qwen2_audio": (),
    "qwen3_omni_moe": ("PIL", "torchvision"),
    "voxtral": ("mistral_common",),
    "phi4_multimodal": ("PIL", "torchvision"),
}
LEFT = {"padding": True, "padding_side": "left"}


@dataclass
class Native:
    """A model and a processor-like thing; `note` says what stands in for which class, empty where nothing does."""

    model: Any
    processor: Any
    audio_token_id: int
    note: str
    loading: dict[str, Any]  # missing and unexpected keys, as transformers reports them
    arguments: dict[str, Any]

    def inputs(self, conversations: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
        """What `model(**inputs)` takes: left padded, generation prompt added."""
        made = self.processor.apply_chat_template(
            list(conversations),
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            processor_kwargs=dict(self.arguments),
        )
        return {name: value for name, value in made.items() if value is not None}


def load(family: str, folder: Path, audio_token: str) -> Native:
    """From the folder alone."""
    cls = MiniForConditionalGeneration if family == "undersong_mini" else getattr(transformers, CLASSES[family])
    # published configs say bfloat16
    model, loading = cls.from_pretrained(folder, output_loading_info=True, dtype="float32")
    processor, note = _processor(family, Path(folder))
    arguments: dict[str, Any] = {"text_kwargs": dict(LEFT), "return_tensors": "pt"}
    if family in ("audioflamingo3", "musicflamingo", "qwen2_audio", "undersong_mini"):
        arguments["audio_kwargs"] = {"padding": "max_length"}  # their towers add all positions: full windows only
    token = processor.tokenizer.convert_tokens_to_ids(audio_token)
    return Native(model.eval(), processor, token, note, loading, arguments)


def template_of(folder: Path) -> str:
    """The chat template, from whichever file holds it."""
    if (file := folder / "chat_template.jinja").exists():
        return file.read_text()
    file = folder / "chat_template.json"
    config = json.loads((file if file.exists() else folder / "tokenizer_config.json").read_text())
    return str(config.get("chat_template"))


def _processor(family: str, folder: Path) -> tuple[Any, str]:
    if (folder / "tekken.json").exists():
        return Mistral(folder), ""
    parts = {
        "feature_extractor": transformers.AutoFeatureExtractor.from_pretrained(folder),
        "tokenizer": transformers.AutoTokenizer.from_pretrained(folder, padding_side="left"),
        "chat_template": template_of(folder),
    }
    if family == "undersong_mini":
        return transformers.AudioFlamingo3Processor(**parts, audio_token="<repo_name>"), ""
    if family == "audioflamingo3":
        own = transformers.AudioFlamingo3Processor
        seconds = 20 * parts["feature_extractor"].chunk_length  # as published: 20 windows
        return own(**parts, max_audio_len=seconds), ""
    if family == "musicflamingo":
        return transformers.MusicFlamingoProcessor(
            **parts, max_audio_len=40 * parts["feature_extractor"].chunk_length
        ), ""
    if family == "qwen2_audio":  # its class holds the template
        return transformers.Qwen2AudioProcessor(**{**parts, "chat_template": None}), ""
    seeing = all(find_spec(package) for package in ("PIL", "torchvision"))
    if family in ("qwen2_5_omni", "qwen3_omni_moe"):
        if seeing:
            eyes = {"image_processor": transformers.Qwen2VLImageProcessor()}
            eyes |= {"video_processor": transformers.Qwen2VLVideoProcessor()}
            return _own_omni(family)(**eyes, **parts), ""
        return _omni(family)(**parts), "the family's processor class without its image and video processors"
    if family == "phi4_multimodal":
        parts |= {"audio_processor": parts.pop("feature_extractor"), "chat_template": PHI4_WITH_AUDIO}
        if seeing:
            eye = transformers.Phi4MultimodalImageProcessor()
            return transformers.Phi4MultimodalProcessor(image_processor=eye, **parts), ""
        return _phi4()(**parts), "the family's processor class without its image processor"
    return Assembled(**parts), "own assembly for VoxtralProcessor, which reads only tekken.json"


def _own_omni(family: str) -> Any:
    return transformers.Qwen2_5OmniProcessor if family == "qwen2_5_omni" else transformers.Qwen3OmniMoeProcessor


def _omni(family: str) -> type:
    base = _own_omni(family)

    class SoundOnly(base):  # type: ignore[misc,valid-type]
        """`base` with its own handling of sound and text, and no pictures."""

        def __init__(self, feature_extractor: Any, tokenizer: Any, chat_template: str) -> None:
            ProcessorMixin.__init__(self, feature_extractor, tokenizer, chat_template=chat_template)
            for name in ("image", "audio", "video"):
                setattr(self, f"{name}_token", getattr(tokenizer, f"{name}_token"))
                setattr(self, f"{name}_token_id", getattr(tokenizer, f"{name}_token_id"))

        @property
        def model_input_names(self) -> list[str]:
            return [*self.tokenizer.model_input_names, "input_features", "feature_attention_mask"]

    return SoundOnly


def _phi4() -> type:
    class SoundOnly(transformers.Phi4MultimodalProcessor):  # type: ignore[misc]
        """The class with its own handling of sound and text, and no pictures."""

        def __init__(self, audio_processor: Any, tokenizer: Any, chat_template: str) -> None:
            ProcessorMixin.__init__(self, audio_processor, tokenizer, chat_template=chat_template)
            self.audio_token, self.audio_token_id = tokenizer.audio_token, tokenizer.audio_token_id

    return SoundOnly


class Assembled:
    """What VoxtralProcessor does to chat and sound, over a tokenizer.json: windows padded to the full, 1 row each."""

    def __init__(self, feature_extractor: Any, tokenizer: Any, chat_template: str) -> None:
        self.feature_extractor, self.tokenizer, self.chat_template = feature_extractor, tokenizer, chat_template

    def apply_chat_template(self, conversations: list[Any], **_: Any) -> dict[str, torch.Tensor]:
        texts, features = [], []
        for turns in conversations:
            text = self.tokenizer.apply_chat_template(turns, chat_template=self.chat_template, tokenize=False)
            clips = [
                c["audio"] for m in turns if not isinstance(m["content"], str) for c in m["content"] if "audio" in c
            ]
            windows = [self._windows(clip) for clip in clips]
            first, *rest = text.split("[AUDIO]")
            heard = ["[AUDIO]" * (w.shape[0] * w.shape[2] // 8) for w in windows]
            texts.append(first + "".join(place + after for place, after in zip(heard, rest, strict=True)))
            features += windows
        made = self.tokenizer(texts, return_tensors="pt", add_special_tokens=False, **LEFT)
        made.pop("token_type_ids", None)
        return {**made, **({"input_features": torch.cat(features)} if features else {})}

    def _windows(self, clip: np.ndarray) -> torch.Tensor:
        """(windows, mels, frames): as VoxtralProcessor cuts the mel of a clip padded to whole windows."""
        window = self.feature_extractor.n_samples
        made = self.feature_extractor(
            clip, sampling_rate=16_000, padding=True, truncation=False, pad_to_multiple_of=window, return_tensors="pt"
        )["input_features"]
        frames = window // self.feature_extractor.hop_length
        return made.reshape(self.feature_extractor.feature_size, -1, frames).transpose(0, 1)


class Mistral:
    """VoxtralProcessor itself over tekken.json, which needs mistral_common; takes arrays as the others do."""

    def __init__(self, folder: Path) -> None:
        self.feature_extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(folder, mistral_format=True)
        self.own = transformers.VoxtralProcessor(self.feature_extractor, self.tokenizer)

    def apply_chat_template(self, conversations: list[Any], **_: Any) -> Any:
        window = self.feature_extractor.n_samples
        frames = window // self.feature_extractor.hop_length
        audio = {"pad_to_multiple_of": window, "max_source_positions": frames}  # its own are those of 30 s
        turns = [[{**m, "content": [_encoded(c) for c in m["content"]]} for m in turns] for turns in conversations]
        return self.own.apply_chat_template(turns, processor_kwargs={"audio_kwargs": audio})


def _encoded(piece: dict[str, Any]) -> dict[str, Any]:
    """A clip as the base64 of a float WAV file, which loses nothing."""
    if "audio" not in piece:
        return piece
    file = io.BytesIO()
    soundfile.write(file, piece["audio"], 16_000, format="WAV", subtype="FLOAT")
    return {"type": "audio", "base64": base64.b64encode(file.getvalue()).decode()}
