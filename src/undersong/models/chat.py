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
from undersong.models.checkpoint_files import (
    EXTRACTOR_FILES,
    check_extractor_settings,
    describe_loading_error,
    list_absent,
)
from undersong.models.families import BY_ROLE, Family, import_object
from undersong.models.hub_files import find_file
from undersong.models.pretrained import load_pretrained
from undersong.models.weights import LOADING_ERRORS
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
        text = self.prompt_text(messages, placeholder_count)
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def prompt_text(self, messages: Sequence[dict[str, Any]], placeholder_count: int = 0) -> str:
        """The text that `token_ids` are the ids of. Raises UndersongError in the same cases."""
        text = self._render(messages, bool(placeholder_count))
        if placeholder_count:
            before, after = self.audio_delimiters
            text = text.replace(self.audio_token, before + self.audio_token * placeholder_count + after, 1)
        return text

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
    tokenizer = load_tokenizer(source, family, ref, **options)
    extractor = load_feature_extractor(source, family, ref, **options)
    token_id = placeholder_id(tokenizer, family, ref)
    template = load_chat_template(source, tokenizer, family, ref, **options)
    return Processor(tokenizer, extractor, template, family.audio_token, token_id, family.audio_delimiters, ref)


def end_token_ids(tokenizer: Any, family: Family, checkpoint_ids: Sequence[int]) -> list[int]:
    """Tokens that end a reply: the trained end of turn, then the tokenizer's eos and the checkpoint's own."""
    eos, unknown = tokenizer.eos_token_id, tokenizer.unk_token_id
    end = tokenizer.convert_tokens_to_ids(family.end_token or tokenizer.eos_token)
    turn_ends = [eos] if end in (None, unknown) else [end, eos]
    return list(dict.fromkeys([*turn_ends, *checkpoint_ids]))


def name_tokens(tokenizer: Any, ids: Sequence[int]) -> str:
    """Tokens with their ids, in words."""
    return ", ".join(f"{tokenizer.convert_ids_to_tokens(token_id)} ({token_id})" for token_id in ids) or "nothing"


TOKENIZER_FILES = ("tokenizer.json", "tekken.json", "tokenizer.model", "vocab.json", "tiktoken.model")
TOKENIZER_SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
# Small files that loading reads if they exist, each with one JSON object in it.
TOKENIZER_JSON_FILES = ("config.json", "tokenizer.json", "tekken.json", "vocab.json", *TOKENIZER_SETTINGS_FILES)


def load_tokenizer(source: str | Path, family: Family, ref: str, **options: Any) -> Any:
    """Load a checkpoint's tokenizer, which pads on the left. Raises UndersongError if it has no eos or pad token.

    Args:
        source: Folder or Hugging Face id.
        family: Family of the model.
        ref: Name of the model in errors.
        options: Options of `from_pretrained`, such as revision.
    """
    from transformers import AutoTokenizer

    options = {**options, **family.tokenizer_options}
    try:
        tokenizer: Any = (
            import_object(family.tokenizer)(source, **options)
            if family.tokenizer
            else load_pretrained(AutoTokenizer.from_pretrained, source, ref, files=TOKENIZER_JSON_FILES, **options)
        )
    except LOADING_ERRORS as error:
        raise _loading_error("tokenizer", TOKENIZER_FILES, source, ref, error) from error
    tokenizer.padding_side = "left"
    for name in ("eos", "pad"):
        if getattr(tokenizer, f"{name}_token_id") is None:
            raise UndersongError(
                f"The tokenizer of {ref} has no {name} token; give the folder of a complete checkpoint."
            )
    return tokenizer


def load_feature_extractor(source: str | Path, family: Family, ref: str, **options: Any) -> Any:
    """Load a checkpoint's feature extractor. Raises UndersongError if it has not the family's rate and hop.

    Args:
        source: Folder or Hugging Face id.
        family: Family of the model.
        ref: Name of the model in errors.
        options: Options of `from_pretrained`, such as revision.
    """
    from transformers import AutoFeatureExtractor

    if not family.extractor:
        check_extractor_settings(source, ref, options)
    try:
        extractor: Any = (
            import_object(family.extractor)(source, **options)
            if family.extractor
            else load_pretrained(AutoFeatureExtractor.from_pretrained, source, ref, files=EXTRACTOR_FILES, **options)
        )
    except LOADING_ERRORS as error:
        raise _loading_error("feature extractor", EXTRACTOR_FILES, source, ref, error) from error
    _check_rate(extractor, family, ref)
    return extractor


def _loading_error(part: str, files: Sequence[str], source: str | Path, ref: str, error: Exception) -> UndersongError:
    """An error that names the files of a folder, or says that it has none of them."""
    present = [name for name in files if (Path(source) / name).is_file()]
    reason = list_absent(files) if Path(source).is_dir() and not present else describe_loading_error(error)
    if part == "tokenizer" and present:
        present += [name for name in TOKENIZER_SETTINGS_FILES if (Path(source) / name).is_file()]
    origin = f" from {' and '.join(present)}" if present else ""
    return UndersongError(
        f"The {part} of {ref} could not be loaded{origin} ({reason}); give the folder of a complete checkpoint."
    )


def placeholder_id(tokenizer: Any, family: Family, ref: str) -> int:
    """Id of the family's placeholder. Raises UndersongError if the tokenizer has none; transformers fails later."""
    token_id = tokenizer.convert_tokens_to_ids(family.audio_token)
    if token_id is None or token_id == tokenizer.unk_token_id:
        raise UndersongError(
            f"The tokenizer of {ref} has no placeholder {family.audio_token}; give the folder of a complete checkpoint."
        )
    return int(token_id)


def load_chat_template(source: str | Path, tokenizer: Any, family: Family, ref: str, **options: Any) -> str:
    """The checkpoint's template; or the family's, if it publishes none or one that writes no audio.

    Args:
        source: Folder or Hugging Face id.
        tokenizer: Its tokenizer.
        family: Family of the model.
        ref: Name of the model in errors.
        options: Options of `from_pretrained`, such as revision.

    Raises:
        UndersongError: Neither has a template.
    """
    template = _template_with_audio(_published_template(source, tokenizer, family, options), family)
    if template is None:
        raise UndersongError(
            f"The tokenizer of {ref} has no chat template; give the checkpoint's chat_template.jinja or "
            "tokenizer_config.json."
        )
    return template


def _published_template(source: str | Path, tokenizer: Any, family: Family, options: dict[str, Any]) -> str | None:
    """The checkpoint's own template, chosen as transformers' processors do."""
    if family.tokenizer:  # our own tokenizer comes with its template
        return str(tokenizer.chat_template)
    jinja_path, json_path = (find_file(source, name, options) for name in TEMPLATE_FILES)
    if jinja_path:
        return jinja_path.read_text(encoding="utf-8")
    if json_path:
        try:
            return str(json.loads(json_path.read_text(encoding="utf-8"))["chat_template"])
        except (ValueError, TypeError, KeyError) as error:
            raise UndersongError(f"{json_path} holds no chat template; give the checkpoint's own file.") from error
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several templates by name
        template = template.get("default")
    if template is not None and not isinstance(template, str):
        raise UndersongError(
            f"The chat template in tokenizer_config.json of {source} is no text; give the checkpoint's own file."
        )
    return template


def _template_with_audio(published: str | None, family: Family) -> str | None:
    """The published template; or the family's, if there is none or it writes no audio, as a language model's."""
    writes_audio = published is not None and family.audio_token in published
    return published if writes_audio else family.chat_template or published


def _check_rate(extractor: Any, family: Family, ref: str) -> None:
    """Check the family's rate and hop: with others the placeholder formula holds, but the features are wrong."""
    actual = getattr(extractor, "sampling_rate", None), getattr(extractor, "hop_length", None)
    if actual != (family.rate, family.hop):
        raise UndersongError(
            f"The feature extractor of {ref} takes {actual[0]} Hz in hops of {actual[1]} samples, and {family.name} "
            f"{family.rate} Hz in hops of {family.hop}; give the checkpoint's own preprocessor config."
        )
