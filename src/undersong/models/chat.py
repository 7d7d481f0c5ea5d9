"""Chat messages of a prompt, and the tokenizer, chat template and feature extractor that turn them into token ids.

Loads no network.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.escaping import describe_error
from undersong.models.chat_template import render_chat_template
from undersong.models.families import BY_ROLE, Family, import_object
from undersong.models.pretrained import load_pretrained
from undersong.types import Prompt, UndersongError

AUDIO_CONTENT = {"type": "audio", "audio": ""}  # part of a message; published templates look for either key


def chat_messages(prompt: Prompt, family: Family) -> list[dict[str, Any]]:
    """Chat messages of a prompt, with a placeholder for the audio.

    A family without a system role gets the system text as the first text of the user's turn.
    """
    by_role = family.system == BY_ROLE
    content: list[dict[str, str]] = [AUDIO_CONTENT] if prompt.modality == "audio" else []
    # One text part, not two: templates join parts without a space.
    if prompt.user_text:
        content.insert(0 if prompt.instruction_first else len(content), {"type": "text", "text": prompt.user_text})
    if prompt.system_text and not by_role:
        content.insert(0, {"type": "text", "text": prompt.system_text + "\n"})
    messages: list[dict[str, Any]] = []
    if prompt.system_text and by_role:
        messages.append({"role": "system", "content": [{"type": "text", "text": prompt.system_text}]})
    return [*messages, {"role": "user", "content": content}]


TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class Processor:
    """A model's tokenizer, chat template and feature extractor."""

    tokenizer: Any
    extractor: Any
    chat_template: str
    audio_token: str
    audio_token_id: int
    audio_delimiters: tuple[str, str]
    name: str = "the model"

    def token_ids(self, messages: Sequence[dict[str, Any]], placeholder_count: int = 0) -> list[int]:
        """Token ids up to the assistant's turn, with the audio placeholder repeated `placeholder_count` times.

        Raises UndersongError for a template that fails, or that leaves out a text of the conversation.
        """
        text = self._render(messages, bool(placeholder_count))
        if placeholder_count:
            before, after = self.audio_delimiters
            text = text.replace(self.audio_token, before + self.audio_token * placeholder_count + after, 1)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _render(self, messages: Sequence[dict[str, Any]], has_audio: bool) -> str:
        from jinja2 import TemplateError

        try:
            text = render_chat_template(self.chat_template, messages, self.tokenizer.special_tokens_map)
        except (TemplateError, TypeError, ValueError, LookupError, ArithmeticError, RuntimeError) as error:
            reason = describe_error(error)
            raise UndersongError(
                f"The chat template of {self.name} cannot write this prompt ({reason}); give the checkpoint's own."
            ) from error
        texts = [piece["text"].strip() for message in messages for piece in message["content"] if "text" in piece]
        if missing := [piece for piece in texts if piece not in text]:
            raise UndersongError(
                f"The chat template of {self.name} leaves out {missing[0][:60]!r}; give one that writes every text, "
                "the system text too."
            )
        # Placeholders inside texts are counted and rejected later, when the prompt is known.
        written_placeholders = text.count(self.audio_token) - sum(piece.count(self.audio_token) for piece in texts)
        if has_audio and written_placeholders != 1:
            raise UndersongError(
                f"The chat template of {self.name} writes {written_placeholders} placeholders {self.audio_token} for a "
                "clip, not one; give the checkpoint's own."
            )
        return text


def load_processor(source: str | Path, family: Family, ref: str, **options: Any) -> Processor:
    """Load the processor of a checkpoint.

    Args:
        source: Folder or Hugging Face id.
        family: Family of the model.
        ref: Name of the model in errors.
        options: Options of `from_pretrained`, such as revision.

    Raises:
        UndersongError: A file that is missing or does not load; or a tokenizer without a template, a padding token or
            the family's placeholder.
    """
    from transformers import AutoFeatureExtractor, AutoTokenizer

    try:
        tokenizer = (
            import_object(family.tokenizer)(source, **options, **family.tokenizer_options)
            if family.tokenizer
            else load_pretrained(AutoTokenizer.from_pretrained, source, ref, **options, **family.tokenizer_options)
        )
        extractor = (
            import_object(family.extractor)(source, **options)
            if family.extractor
            else load_pretrained(AutoFeatureExtractor.from_pretrained, source, ref, **options)
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ImportError) as error:
        reason = describe_error(error)
        raise UndersongError(
            f"The tokenizer and feature extractor of {ref} could not be loaded ({reason}); give the folder of a "
            "complete checkpoint."
        ) from error
    tokenizer.padding_side = "left"
    _check_extractor(extractor, family, ref)
    published = _load_chat_template(source, tokenizer, family, options)
    template, token_id = _check_tokenizer(tokenizer, _template_with_audio(published, family), family, ref)
    return Processor(tokenizer, extractor, template, family.audio_token, token_id, family.audio_delimiters, ref)


def _load_chat_template(source: str | Path, tokenizer: Any, family: Family, options: dict[str, Any]) -> str | None:
    """The checkpoint's own template, chosen as transformers' processors do."""
    from transformers.utils import cached_file

    if family.tokenizer:  # our own tokenizer comes with its template
        return str(tokenizer.chat_template)
    no_raise: dict[str, bool] = {
        "_raise_exceptions_for_missing_entries": False,
        "_raise_exceptions_for_connection_errors": False,
    }
    jinja_path, json_path = (cached_file(str(source), name, **options, **no_raise) for name in TEMPLATE_FILES)
    if jinja_path:
        return Path(jinja_path).read_text(encoding="utf-8")
    if json_path:
        try:
            return str(json.loads(Path(json_path).read_text(encoding="utf-8"))["chat_template"])
        except (ValueError, TypeError, KeyError) as error:
            raise UndersongError(f"{json_path} holds no chat template; give the checkpoint's own file.") from error
    template: str | None = tokenizer.chat_template
    return template


def _template_with_audio(published: str | None, family: Family) -> str | None:
    """The published template; or the family's, if there is none or it writes no audio, as a language model's."""
    writes_audio = published is not None and family.audio_token in published
    return published if writes_audio else family.chat_template or published


def _check_extractor(extractor: Any, family: Family, ref: str) -> None:
    """Check the family's rate and hop: with others the placeholder formula holds, but the features are wrong."""
    actual = getattr(extractor, "sampling_rate", None), getattr(extractor, "hop_length", None)
    if actual != (family.rate, family.hop):
        raise UndersongError(
            f"The feature extractor of {ref} takes {actual[0]} Hz in hops of {actual[1]} samples, and {family.name} "
            f"{family.rate} Hz in hops of {family.hop}; give the checkpoint's own preprocessor config."
        )


def _check_tokenizer(tokenizer: Any, template: str | None, family: Family, ref: str) -> tuple[str, int]:
    """Template and placeholder id. transformers loads without these and fails later, in the middle of a run."""
    placeholder = tokenizer.convert_tokens_to_ids(family.audio_token)
    requirements = {
        f"placeholder {family.audio_token}": None if placeholder == tokenizer.unk_token_id else placeholder,
        "chat template": template,
        "eos token": tokenizer.eos_token,
        "pad token": tokenizer.pad_token,
    }
    if missing := [name for name, value in requirements.items() if value is None]:
        raise UndersongError(f"The tokenizer of {ref} has no {missing[0]}; give the folder of a complete checkpoint.")
    assert template is not None
    return template, int(placeholder)
