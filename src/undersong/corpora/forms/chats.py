"""One training conversation as one row: what is said, what is typed beside it, what is answered.  Knows no files.

Five ways of writing the same thing: `messages` (LLaMA-Factory, ms-swift, Hugging Face chat), ShareGPT
(`conversations`), Kimi-Audio's `conversation`, Alpaca (`instruction`, `input`, `output`) and ms-swift's `query` and
`response`.  Only one question and one answer make a sample: a conversation
with more turns, several clips or a spoken answer is `Unusable`, with the reason, and never cut to fit.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}
PLACEHOLDER = "<audio>"
OWN = "undersong"  # the column our own exports keep their fields in


class Unusable(ValueError):
    """A well-formed conversation that is no single question and answer; the message is the reason."""


@dataclass(slots=True)
class Turn:
    """What one side said: its typed text and its clips (paths)."""

    role: str
    texts: list[str] = field(default_factory=list)
    audios: list[Any] = field(default_factory=list)
    marks: int = 0  # placeholders that stand for clips listed elsewhere in the row


def from_messages(row: Mapping[str, Any]) -> dict[str, Any]:
    """`messages` of role and content (a string with `<audio>`, or a list of parts) beside `audios`."""
    turns = [_message(item) for item in _list(row, "messages")]
    system = row.get("system")  # LLaMA-Factory may keep it in a column of its own
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _sample(row, turns, _audios(row), ("messages", "audios", "audio", "system"))


def from_sharegpt(row: Mapping[str, Any]) -> dict[str, Any]:
    """`conversations` of from and value, beside `audio` or `audios`."""
    turns = [_message(item, "from", "value") for item in _list(row, "conversations")]
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _sample(row, turns, _audios(row), ("conversations", "audios", "audio", "system"))


def from_kimi(row: Mapping[str, Any]) -> dict[str, Any]:
    """`conversation` of role, message_type (text or audio) and content; audio tokens are left, they follow from it."""
    turns = []
    for item in _list(row, "conversation"):
        kind, content = item.get("message_type"), item.get("content")
        turn = Turn(_role(item.get("role")))
        if kind == "text" and isinstance(content, str):
            turn.texts.append(_exact(turn.role, content))
        elif kind == "audio" and isinstance(content, str):
            turn.audios.append(content)
        else:
            raise Unusable(f"a message of type {kind!r} is neither text nor audio")
        turns.append(turn)
    return _sample(row, turns, [], ("conversation", "task_type"))


def from_alpaca(row: Mapping[str, Any]) -> dict[str, Any]:
    """`instruction`, `input` (put after it) and `output`, beside `audios`; LLaMA-Factory's other form."""
    return _flat(row, ("instruction", "input"), "output")


def from_query(row: Mapping[str, Any]) -> dict[str, Any]:
    """`query` and `response`, beside `audios`; ms-swift's other form."""
    return _flat(row, ("query",), "response")


def _flat(row: Mapping[str, Any], asked: tuple[str, ...], answered: str) -> dict[str, Any]:
    """One question and answer in columns of their own; `history` holds the turns before them."""
    if row.get("history"):
        raise Unusable("it has turns before its question")
    said = [row.get(name) or "" for name in (*asked, answered)]
    if odd := next((name for name, text in zip((*asked, answered), said) if not isinstance(text, str)), None):
        raise Unusable(f"its {odd} is no text")
    *typed, answer = said
    whole = "\n".join(filter(None, typed))
    turns = [Turn("user", [_exact("user", whole)], [], whole.count(PLACEHOLDER))]
    turns.append(Turn("assistant", [answer], [], answer.count(PLACEHOLDER)))
    system = row.get("system")
    if isinstance(system, str) and system.strip():
        turns.insert(0, Turn("system", [system.strip()]))
    return _sample(row, turns, _audios(row), (*asked, answered, "audios", "audio", "system", "history"))


FORMS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "messages": from_messages,
    "sharegpt": from_sharegpt,
    "kimi": from_kimi,
    "alpaca": from_alpaca,
    "query": from_query,
}
LISTS = {"messages": "messages", "conversations": "sharegpt", "conversation": "kimi"}  # by the name of a list
FLAT = {"alpaca": ("instruction", "output"), "query": ("query", "response")}  # by the columns


def form_of(row: Any, columns: Collection[str] = ()) -> str | None:
    """Which of FORMS a row is written in, by the names of its columns; None for none of them.

    Flat forms are taken for that only where nothing is called as in a manifest and the user's map (`columns`: our
    fields in it) does not say itself which column holds the answer.
    """
    if not isinstance(row, Mapping):
        return None
    for column, name in LISTS.items():
        if isinstance(row.get(column), list):
            return name
    if "answer" in columns or not row.keys().isdisjoint(("text", "answer")):
        return None
    return next((name for name, names in FLAT.items() if all(isinstance(row.get(one), str) for one in names)), None)


def _sample(row: Mapping[str, Any], turns: list[Turn], listed: list[Any], used: tuple[str, ...]) -> dict[str, Any]:
    """A row for `sample_of`.  What is typed beside a clip is its `instruction`: whether it is also the transcript only
    the maker of the data knows, who says so by the column map `text: instruction`."""
    said = _merged(turns)
    roles = [turn.role for turn in said if turn.role != "system"]
    if roles not in (["user"], ["user", "assistant"]):
        raise Unusable(f"its turns are {', '.join(roles) or 'none'} instead of user, assistant")
    user, assistant = said[-len(roles)], said[-1] if len(roles) == 2 else None
    if assistant is not None and (assistant.audios or assistant.marks):
        raise Unusable("its answer is spoken")
    # Without a placeholder the clips that are listed belong to the question.
    if user.marks and user.marks != len(listed) + len(user.audios):
        raise Unusable(f"it has {user.marks} placeholders {PLACEHOLDER} and {len(listed) + len(user.audios)} clips")
    clips = [*user.audios, *listed]
    if len(clips) > 1:
        raise Unusable(f"it has {len(clips)} clips instead of one")
    typed = "\n".join(text for text in user.texts if text)
    system = "\n".join(text for turn in said if turn.role == "system" for text in turn.texts)
    out: dict[str, Any] = {name: value for name, value in row.items() if name not in (*used, OWN)}
    out |= {"audio": clips[0] if clips else None, "instruction" if clips else "text": typed or None}
    out |= {"answer": "\n".join(assistant.texts) if assistant else None, "system": system or None}
    if not clips and not typed:
        raise Unusable("its question holds neither audio nor text")
    return out | _own(row.get(OWN))


def _own(value: Any) -> dict[str, Any]:
    """Fields that our export kept as one JSON string."""
    from undersong.corpora.forms.tables import strict_json

    if value is None:
        return {}
    kept = strict_json(value) if isinstance(value, str) else value
    if not isinstance(kept, Mapping):
        raise Unusable(f"its column {OWN!r} is no object")
    return dict(kept)


def _merged(turns: list[Turn]) -> list[Turn]:
    """Neighbouring turns of one role are one: a clip and the text beside it are often written as two messages."""
    out: list[Turn] = []
    for turn in turns:
        if out and out[-1].role == turn.role:
            out[-1].texts += turn.texts
            out[-1].audios += turn.audios
            out[-1].marks += turn.marks
        else:
            out.append(Turn(turn.role, list(turn.texts), list(turn.audios), turn.marks))
    return out


def _message(item: Any, role: str = "role", content: str = "content") -> Turn:
    turn, value = Turn(_role(item.get(role))), item.get(content)
    if isinstance(value, str):
        turn.marks = value.count(PLACEHOLDER)
        turn.texts.append(_exact(turn.role, value))
        return turn
    if not isinstance(value, list):
        raise Unusable(f"a message's {content} is neither text nor a list of parts")
    for part in value:
        kind = part.get("type") if isinstance(part, Mapping) else None
        text = part.get("text") if kind == "text" else None
        audio = (
            next((part[key] for key in ("audio", "path", "url") if part.get(key)), None) if kind == "audio" else None
        )
        if isinstance(text, str):
            turn.texts.append(_exact(turn.role, text))
        elif isinstance(audio, str | Mapping):
            turn.audios.append(audio)
        elif kind == "audio":
            turn.marks += 1  # its clip is listed beside the messages
        else:
            raise Unusable(f"a part of type {kind!r} is neither text nor audio")
    return turn


def _exact(role: str, text: str) -> str:
    """An answer to the letter, for it is trained on; of what is typed, the words."""
    return text if role == "assistant" else text.replace(PLACEHOLDER, "").strip()


def _role(value: Any) -> str:
    if not isinstance(value, str) or value.lower() not in ROLES:
        raise Unusable(f"a message is from {value!r}, which is none of {', '.join(ROLES)}")
    return ROLES[value.lower()]


def _list(row: Mapping[str, Any], name: str) -> list[Any]:
    items = row.get(name)
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise Unusable(f"{name} is no list of messages")
    return items


def _audios(row: Mapping[str, Any]) -> list[Any]:
    """The clips listed beside the messages: `audios` (a list or one) or `audio`."""
    found: list[Any] = []
    for name in ("audios", "audio"):
        value = row.get(name)
        found += value if isinstance(value, list) else [] if value in (None, "") else [value]
    return found
