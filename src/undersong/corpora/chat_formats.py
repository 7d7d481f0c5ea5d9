"""Parsers for chat training formats (messages, ShareGPT, Kimi-Audio, Alpaca, query/response).

Each converts one conversation to a manifest row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = "<audio>"
METADATA_COLUMN = "undersong"  # column in which our exports keep the other fields


class UnusableConversation(ValueError):
    """A well-formed conversation that is not a single question and answer; the message is the reason."""


@dataclass(slots=True)
class Turn:
    """One turn of a conversation: its typed text and its clips (paths)."""

    role: str
    texts: list[str] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)
    placeholders: int = 0  # placeholders that stand for clips listed elsewhere in the row


def from_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `messages` of role and content (a string with `<audio>`, or a list of parts), with clips in `audios`."""
    turns = [_parse_message(item) for item in _message_list(row, "messages")]
    system = row.get("system")  # LLaMA-Factory may keep it in a separate column
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _manifest_row(row, turns, _listed_clips(row), ("messages", "audios", "audio", "system"))


def from_sharegpt(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `conversations` of from and value, with clips in `audio` or `audios`."""
    turns = [_parse_message(item, "from", "value") for item in _message_list(row, "conversations")]
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _manifest_row(row, turns, _listed_clips(row), ("conversations", "audios", "audio", "system"))


def from_kimi(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `conversation` of role, message_type (text or audio) and content. Audio tokens are ignored."""
    turns = []
    for item in _message_list(row, "conversation"):
        kind, content = item.get("message_type"), item.get("content")
        turn = Turn(_normalize_role(item.get("role")))
        if kind == "text" and isinstance(content, str):
            turn.texts.append(_turn_text(turn.role, content))
        elif kind == "audio" and isinstance(content, str):
            turn.audios.append(content)
        else:
            raise UnusableConversation(f"a message of type {kind!r} is neither text nor audio")
        turns.append(turn)
    return _manifest_row(row, turns, [], ("conversation", "task_type"))


def from_alpaca(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `instruction`, `input` (appended to it) and `output`, with clips in `audios` (LLaMA-Factory)."""
    return _parse_flat(row, ("instruction", "input"), "output")


def from_query(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse `query` and `response`, with clips in `audios` (ms-swift)."""
    return _parse_flat(row, ("query",), "response")


def _parse_flat(row: Mapping[str, Any], question_columns: tuple[str, ...], answer_column: str) -> dict[str, Any]:
    """Parse one question and answer in separate columns; `history` holds earlier turns."""
    if row.get("history"):
        raise UnusableConversation("it has turns before its question")
    texts = [row.get(name) or "" for name in (*question_columns, answer_column)]
    if invalid_column := next(
        (name for name, text in zip((*question_columns, answer_column), texts) if not isinstance(text, str)), None
    ):
        raise UnusableConversation(f"its {invalid_column} is not text")
    *question_parts, answer = texts
    question = "\n".join(filter(None, question_parts))
    turns = [Turn("user", [_turn_text("user", question)], [], question.count(PLACEHOLDER))]
    turns.append(Turn("assistant", [answer], [], answer.count(PLACEHOLDER)))
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _manifest_row(
        row, turns, _listed_clips(row), (*question_columns, answer_column, "audios", "audio", "system", "history")
    )


CHAT_PARSERS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "kimi": from_kimi,
    "alpaca": from_alpaca,
    "query": from_query,
}
FORMAT_BY_LIST_COLUMN = {"messages": "messages", "conversations": "sharegpt", "conversation": "kimi"}
FLAT_FORMAT_COLUMNS = {"alpaca": ("instruction", "output"), "query": ("query", "response")}


def detect_chat_format(row: Any, columns: Collection[str] = ()) -> str | None:
    """Detect the chat format of a row by the names of its columns; None if it has none.

    A flat format is recognized only if no column has a manifest name and the column map (`columns`: our fields in it)
    does not name the answer.
    """
    if not isinstance(row, Mapping):
        return None
    for column, name in FORMAT_BY_LIST_COLUMN.items():
        if isinstance(row.get(column), list):
            return name
    if "answer" in columns or not row.keys().isdisjoint(("text", "answer")):
        return None
    return next(
        (
            name
            for name, names in FLAT_FORMAT_COLUMNS.items()
            if all(isinstance(row.get(column_name), str) for column_name in names)
        ),
        None,
    )


def _manifest_row(
    row: Mapping[str, Any], turns: list[Turn], listed_clips: list[Any], used_columns: tuple[str, ...]
) -> dict[str, Any]:
    """Build a row for `sample_from_row`.

    Text typed next to a clip becomes its `instruction`. Only the maker of the data knows whether it is also the
    transcript; the column map `text: instruction` says so.
    """
    merged_turns = _merge_turns(turns)
    roles = [turn.role for turn in merged_turns if turn.role != "system"]
    if roles not in (["user"], ["user", "assistant"]):
        raise UnusableConversation(f"its turns are {', '.join(roles) or 'none'} instead of user, assistant")
    user, assistant = merged_turns[-len(roles)], merged_turns[-1] if len(roles) == 2 else None
    if assistant is not None and (assistant.audios or assistant.placeholders):
        raise UnusableConversation("its answer is spoken")
    # Without placeholders, the listed clips belong to the question.
    if user.placeholders and user.placeholders != len(listed_clips) + len(user.audios):
        raise UnusableConversation(
            f"it has {user.placeholders} placeholders {PLACEHOLDER} and {len(listed_clips) + len(user.audios)} clips"
        )
    clips = [*user.audios, *listed_clips]
    if len(clips) > 1:
        raise UnusableConversation(f"it has {len(clips)} clips instead of one")
    user_text = "\n".join(text for text in user.texts if text)
    system = "\n".join(text for turn in merged_turns if turn.role == "system" for text in turn.texts)
    out: dict[str, Any] = {name: value for name, value in row.items() if name not in (*used_columns, METADATA_COLUMN)}
    out |= {"audio": clips[0] if clips else None, "instruction" if clips else "text": user_text or None}
    out |= {"answer": "\n".join(assistant.texts) if assistant else None, "system": system or None}
    if not clips and not user_text:
        raise UnusableConversation("its question holds neither audio nor text")
    return out | _metadata_fields(row.get(METADATA_COLUMN))


def _metadata_fields(value: Any) -> dict[str, Any]:
    """Fields that our export kept as one JSON string."""
    from undersong.corpora.tables import strict_json

    if value is None:
        return {}
    fields = strict_json(value) if isinstance(value, str) else value
    if not isinstance(fields, Mapping):
        raise UnusableConversation(f"its column {METADATA_COLUMN!r} is no object")
    return dict(fields)


def _merge_turns(turns: list[Turn]) -> list[Turn]:
    """Merge adjacent turns of one role: a clip and the text next to it are often written as two messages."""
    out: list[Turn] = []
    for turn in turns:
        if out and out[-1].role == turn.role:
            out[-1].texts += turn.texts
            out[-1].audios += turn.audios
            out[-1].placeholders += turn.placeholders
        else:
            out.append(Turn(turn.role, list(turn.texts), list(turn.audios), turn.placeholders))
    return out


def _parse_message(item: Any, role: str = "role", content: str = "content") -> Turn:
    turn, value = Turn(_normalize_role(item.get(role))), item.get(content)
    if isinstance(value, str):
        turn.placeholders = value.count(PLACEHOLDER)
        turn.texts.append(_turn_text(turn.role, value))
        return turn
    if not isinstance(value, list):
        raise UnusableConversation(f"a message's {content} is neither text nor a list of parts")
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if kind == "text" else None
        audio = (
            next((part[key] for key in ("audio", "path", "url") if part.get(key)), None) if kind == "audio" else None
        )
        if isinstance(text, str):
            turn.texts.append(_turn_text(turn.role, text))
        elif isinstance(audio, str | Mapping):
            turn.audios.append(audio)
        elif kind == "audio":
            turn.placeholders += 1  # its clip is listed outside the messages
        else:
            raise UnusableConversation(f"a part of type {kind!r} is neither text nor audio")
    return turn


def _turn_text(role: str, text: str) -> str:
    """Text of a turn: answers verbatim, because they are trained on; requests without placeholders and outer blanks."""
    return text if role == "assistant" else text.replace(PLACEHOLDER, "").strip()


def _normalize_role(value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in ROLES:
        raise UnusableConversation(f"a message is from {value!r}, which is none of {', '.join(ROLES)}")
    return ROLES[value.lower()]


def _message_list(row: Mapping[str, Any], name: str) -> list[Any]:
    items = row.get(name)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise UnusableConversation(f"{name} is no list of messages")
    return items


def _listed_clips(row: Mapping[str, Any]) -> list[Any]:
    """The clips listed outside the messages: `audios` (a list or one clip) or `audio`."""
    clips: list[Any] = []
    for name in ("audios", "audio"):
        value = row.get(name)
        clips += value if isinstance(value, list) else [] if value in (None, "") else [value]
    return clips
