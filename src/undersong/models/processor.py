"""Tokenizer, feature extractor and chat template of a checkpoint: what every family's own processor is made of.

The processors themselves want packages for images and video, refuse mixed batches, or truncate; tests hold them beside
this as oracles.  Knows files and tokens; does not know networks.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from undersong.models.family import Family
from undersong.types import UndersongError

TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


def named(path: str) -> Any:
    """The object at `module:name`."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


@dataclass(frozen=True)
class Processor:
    """What turns conversations into token ids and clips into features."""

    tokenizer: Any
    extractor: Any
    chat_template: str
    audio_token: str
    audio_token_id: int
    around: tuple[str, str]
    name: str = "the model"

    def ids(self, conversation: Sequence[dict[str, Any]], heard: int = 0) -> list[int]:
        """Token ids up to where the assistant speaks, the placeholder expanded to `heard`.

        Errors: a template that fails, or that leaves out what the conversation says.
        """
        text = self._rendered(conversation, bool(heard))
        if heard:
            before, after = self.around
            text = text.replace(self.audio_token, before + self.audio_token * heard + after, 1)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _rendered(self, conversation: Sequence[dict[str, Any]], heard: bool) -> str:
        from jinja2 import TemplateError

        try:
            text: str = self.tokenizer.apply_chat_template(
                list(conversation), chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        except (TemplateError, TypeError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UndersongError(
                f"The chat template of {self.name} cannot write this prompt ({reason}); give the checkpoint's own."
            ) from error
        said = [piece["text"].strip() for turn in conversation for piece in turn["content"] if "text" in piece]
        if lost := [piece for piece in said if piece not in text]:
            raise UndersongError(
                f"The chat template of {self.name} leaves out {lost[0][:60]!r}; give one that writes every text, the "
                "system text too."
            )
        # What a text may hold of placeholders is counted, and refused, where the prompt is known.
        own = text.count(self.audio_token) - sum(piece.count(self.audio_token) for piece in said)
        if heard and own != 1:
            raise UndersongError(
                f"The chat template of {self.name} writes {own} placeholders {self.audio_token} for a clip, not one; "
                "give the checkpoint's own."
            )
        return text


def load_processor(source: str | Path, family: Family, ref: str, **options: Any) -> Processor:
    """The processor of a checkpoint; `options`: revision.  Errors: a file that is missing or does not load, a
    tokenizer without a template, a padding token or the family's placeholder."""
    from transformers import AutoFeatureExtractor, AutoTokenizer

    try:
        tokenizer = (named(family.tokenizer) if family.tokenizer else AutoTokenizer.from_pretrained)(
            source, **options, **family.tokenizer_options
        )
        extractor = (named(family.extractor) if family.extractor else AutoFeatureExtractor.from_pretrained)(
            source, **options
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UndersongError(
            f"The tokenizer and feature extractor of {ref} could not be loaded ({reason}); give the folder of a "
            "complete checkpoint."
        ) from error
    tokenizer.padding_side = "left"
    _check_extractor(extractor, family, ref)
    template, token_id = _check(tokenizer, _template(source, tokenizer, family, options), family, ref)
    return Processor(tokenizer, extractor, template, family.audio_token, token_id, family.around, ref)


def _template(source: str | Path, tokenizer: Any, family: Family, options: dict[str, Any]) -> str | None:
    """The checkpoint's own, as transformers' processors would choose it; else the family's."""
    from transformers.utils import cached_file

    if family.tokenizer:  # made here, and its template with it
        return str(tokenizer.chat_template)
    missing: dict[str, bool] = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    jinja, legacy = (cached_file(str(source), name, **options, **missing) for name in TEMPLATE_FILES)
    if jinja:
        return Path(jinja).read_text(encoding="utf-8")
    if legacy:
        try:
            return str(json.loads(Path(legacy).read_text(encoding="utf-8"))["chat_template"])
        except (ValueError, TypeError, KeyError) as error:
            raise UndersongError(f"{legacy} holds no chat template; give the checkpoint's own file.") from error
    return tokenizer.chat_template or family.chat_template


def _check_extractor(extractor: Any, family: Family, ref: str) -> None:
    """Rate and hop of the family: with others the formula holds and the sound is another."""
    found = getattr(extractor, "sampling_rate", None), getattr(extractor, "hop_length", None)
    if found != (family.rate, family.hop):
        raise UndersongError(
            f"The feature extractor of {ref} takes {found[0]} Hz in hops of {found[1]} samples, and {family.name} "
            f"{family.rate} Hz in hops of {family.hop}; give the checkpoint's own preprocessor config."
        )


def _check(tokenizer: Any, template: str | None, family: Family, ref: str) -> tuple[str, int]:
    """Template and placeholder id.  transformers loads without these and fails later, in the middle of a run."""
    placeholder = tokenizer.convert_tokens_to_ids(family.audio_token)
    parts = {
        f"placeholder {family.audio_token}": None if placeholder == tokenizer.unk_token_id else placeholder,
        "chat template": template,
        "eos token": tokenizer.eos_token,
        "pad token": tokenizer.pad_token,
    }
    if lacking := [name for name, part in parts.items() if part is None]:
        raise UndersongError(f"The tokenizer of {ref} has no {lacking[0]}; give the folder of a complete checkpoint.")
    assert template is not None
    return template, int(placeholder)
