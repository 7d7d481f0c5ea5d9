"""Rows of trainers' data files: recognition of the layout by column names, and the requests and the answer of a row.

Unlike `chat_formats`, which needs one question and one answer, this keeps every user turn of a conversation. Layouts:
LLaMA-Factory (sharegpt, alpaca, with the columns and tags of `dataset_info.json`), ms-swift (messages, sharegpt,
query), axolotl (messages with parts), TRL (messages, prompt and completion, preference pairs) and Kimi-Audio.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from undersong.corpora.chat_formats import PLACEHOLDER, detect_chat_format

USER_ROLES, ASSISTANT_ROLES = frozenset(["user", "human"]), frozenset(["assistant", "gpt", "model"])
MEDIA_PLACEHOLDERS = (PLACEHOLDER, "<image>", "<video>")
MESSAGE_LAYOUTS = {"messages": "messages", "conversations": "sharegpt"}  # by the column of their messages
LAYOUTS = {
    "messages": "messages (ms-swift, LLaMA-Factory, TRL, axolotl)",
    "parts": "messages with parts (axolotl multimodal, TRL)",
    "sharegpt": "ShareGPT conversations (LLaMA-Factory, ms-swift, axolotl)",
    "pairs": "conversations of human and assistant (ms-swift)",
    "kimi": "Kimi-Audio conversations",
    "alpaca": "Alpaca instructions (LLaMA-Factory, ms-swift, axolotl)",
    "query": "query and response (ms-swift)",
    "completion": "prompt and completion (TRL)",
    "preference": "preference pairs (TRL)",
}
SOURCE_COLUMNS = ("source", "dataset")
SPEAKER_COLUMNS = ("speaker", "speaker_id")


class UnreadableRow(ValueError):
    """A row without anything that is asked; the message is the reason."""


@dataclass(frozen=True, slots=True)
class RowColumns:
    """Columns and tags of a LLaMA-Factory data set, as its `dataset_info.json` may rename them."""

    messages: str = "conversations"
    role: str = "from"
    content: str = "value"
    user: str = "human"
    assistant: str = "gpt"
    prompt: str = "instruction"
    query: str = "input"
    response: str = "output"
    history: str = "history"


@dataclass(slots=True)
class TrainingRow:
    """Training content of a row: the texts of all user turns, and the last answer. `spoken` if a request has a clip."""

    requests: list[str] = field(default_factory=list)
    answer: str | None = None
    spoken: bool = False
    speaker: str | None = None
    source: str | None = None
    group: str | None = None


def detect_layout(row: Any) -> str | None:
    """The layout of a row, one of LAYOUTS; None for a plain table."""
    if not isinstance(row, Mapping):
        return None
    chat_format = detect_chat_format(row)
    if chat_format == "messages":
        contents = (item.get("content") for item in row["messages"] if isinstance(item, Mapping))
        return "parts" if any(isinstance(content, list) for content in contents) else "messages"
    if chat_format == "kimi":
        first = next(iter(row["conversation"]), None)
        return "pairs" if isinstance(first, Mapping) and "human" in first else "kimi"
    if chat_format is not None:
        return chat_format
    if "chosen" in row and "rejected" in row:
        return "preference"
    return "completion" if _is_conversational(row.get("prompt")) and _is_conversational(row.get("completion")) else None


def broken_layout(row: Any) -> str | None:
    """The layout that a row was meant to have whose messages are no list, such as null; None for any other row.

    A row with a text or a clip is one of a table, where a column of that name may hold something else.
    """
    if not isinstance(row, Mapping) or detect_layout(row) is not None or not row.keys().isdisjoint(("text", "audio")):
        return None
    return next((layout for name, layout in MESSAGE_LAYOUTS.items() if name in row), None)


def parse_row(row: Mapping[str, Any], layout: str, columns: RowColumns | None = None) -> TrainingRow:
    """Read a row.

    Args:
        row: The row.
        layout: One of LAYOUTS.
        columns: Columns and tags of LLaMA-Factory's `sharegpt` and `alpaca`; None: the usual ones.

    Raises:
        UnreadableRow: Nothing is asked in it, or it is not of the layout.
    """
    if not isinstance(row, Mapping):
        raise UnreadableRow("it is not an object with named fields")
    parsed = TrainingRow()
    PARSERS[layout](row, parsed, columns or RowColumns())
    parsed.requests = [text for text in map(_request_text, parsed.requests) if text]
    listed_clips = (row.get(name) for name in ("audio", "audios"))
    parsed.spoken = parsed.spoken or any(clips not in (None, "", []) for clips in listed_clips)
    for name, names in (("speaker", SPEAKER_COLUMNS), ("source", SOURCE_COLUMNS), ("group", ("group",))):
        value = next((row[column] for column in names if isinstance(row.get(column), str | int)), None)
        setattr(parsed, name, None if value is None else str(value))
    if not parsed.requests and not parsed.spoken:
        raise UnreadableRow("it has no request of a user")
    return parsed


def _request_text(text: str) -> str:
    for placeholder in MEDIA_PLACEHOLDERS:
        text = text.replace(placeholder, "")
    return text.strip()


def _is_conversational(value: Any) -> bool:
    """True for a text or a list of messages, the two forms that TRL takes."""
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, Mapping) for item in value))


def _read_messages(
    items: Any,
    parsed: TrainingRow,
    role_key: str = "role",
    content_key: str = "content",
    tags: RowColumns | None = None,
) -> None:
    users = USER_ROLES if tags is None else USER_ROLES | {tags.user.lower()}
    assistants = ASSISTANT_ROLES if tags is None else ASSISTANT_ROLES | {tags.assistant.lower()}
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise UnreadableRow("its messages are no list of objects")
    for item in items:
        role, content = item.get(role_key), item.get(content_key)
        kind = role.lower() if isinstance(role, str) else ""
        if kind in users:
            parsed.requests.append("\n".join(_content_texts(content, parsed)))
        elif kind in assistants:
            parsed.answer = "\n".join(_content_texts(content, TrainingRow()))


def _content_texts(content: Any, parsed: TrainingRow) -> Iterator[str]:
    """Texts of a message: the string itself, or its parts of type text. A part of type audio makes the row spoken."""
    if isinstance(content, str):
        yield content
    for part in content if isinstance(content, list) else ():
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text" and isinstance(part.get("text"), str):
            yield part["text"]
        elif kind in ("audio", "input_audio", "audio_url"):
            parsed.spoken = True


def _parse_messages(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    _read_messages(row.get("messages"), parsed)


def _parse_sharegpt(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    _read_messages(row.get(columns.messages), parsed, columns.role, columns.content, columns)


def _parse_pairs(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    for item in _conversation(row):
        human, assistant = (item.get(name) if isinstance(item, Mapping) else None for name in ("human", "assistant"))
        if not isinstance(human, str):
            raise UnreadableRow("a turn of its conversation has no text of `human`")
        parsed.requests.append(human)
        parsed.answer = assistant if isinstance(assistant, str) else None


def _parse_kimi(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    for item in _conversation(row):
        role, kind, content = (
            item.get(name) if isinstance(item, Mapping) else None for name in ("role", "message_type", "content")
        )
        if role == "user" and kind == "text" and isinstance(content, str):
            parsed.requests.append(content)
        elif role == "user" and kind == "audio":
            parsed.spoken = True
        elif role == "assistant" and kind == "text" and isinstance(content, str):
            parsed.answer = content


def _conversation(row: Mapping[str, Any]) -> list[Any]:
    items = row.get("conversation")
    if not isinstance(items, list):
        raise UnreadableRow("its conversation is no list")
    return items


def _parse_flat(
    row: Mapping[str, Any], parsed: TrainingRow, questions: tuple[str, ...], answer: str, history: str
) -> None:
    turns = row.get(history)
    for turn in turns if isinstance(turns, list) else ():
        if isinstance(turn, list | tuple) and turn and isinstance(turn[0], str):
            parsed.requests.append(turn[0])
    parsed.requests.append("\n".join(text for name in questions if isinstance(text := row.get(name), str) and text))
    parsed.answer = text if isinstance(text := row.get(answer), str) else None


def _parse_alpaca(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    _parse_flat(row, parsed, (columns.prompt, columns.query), columns.response, columns.history)


def _parse_query(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    _parse_flat(row, parsed, ("query",), "response", "history")


def _parse_completion(row: Mapping[str, Any], parsed: TrainingRow, columns: RowColumns) -> None:
    """`prompt` is a text or a list of messages, and so is the completion (of preference pairs: the chosen one)."""
    prompt, completion = row.get("prompt"), row.get("completion", row.get("chosen"))
    if isinstance(prompt, str):
        parsed.requests.append(prompt)
    elif prompt is not None:
        _read_messages(prompt, parsed)
    if isinstance(completion, str):
        parsed.answer = completion
    elif completion is not None:  # pairs without a prompt repeat it in both
        _read_messages(completion, parsed)


PARSERS: dict[str, Callable[[Mapping[str, Any], TrainingRow, RowColumns], None]] = {
    "messages": _parse_messages,
    "parts": _parse_messages,
    "sharegpt": _parse_sharegpt,
    "pairs": _parse_pairs,
    "kimi": _parse_kimi,
    "alpaca": _parse_alpaca,
    "query": _parse_query,
    "completion": _parse_completion,
    "preference": _parse_completion,
}
