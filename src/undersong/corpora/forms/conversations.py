"""A kept set as the conversations that trainers read: one question and its answer a line, in one of three spellings.

Knows layouts; does not decode audio.  What `chats.py` reads back is the same samples, whichever spelling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.corpora.forms.chats import OWN, PLACEHOLDER
from undersong.corpora.forms.hub import store_audio
from undersong.corpora.forms.rows import row_of
from undersong.store import write_atomic
from undersong.types import Sample, UndersongError


@dataclass(frozen=True, slots=True)
class Turns:
    """One question and answer.  `asked`: what is typed, beside the clip where there is one."""

    system: str | None
    asked: str | None
    answer: str


def write_chats(samples: Sequence[Sample], path: str | Path, form: str = "messages", instruction: str = "") -> None:
    """JSONL in one of CHATS: `messages` (LLaMA-Factory, ms-swift), `sharegpt`, `kimi` (Kimi-Audio's fine-tuning).

    What is typed beside a clip is the sample's own label `instruction`, else `instruction`; never the transcript,
    which would tell the model in text what it is to hear.  A written sample asks its text.  A label `system` becomes
    the system text.  All other fields are kept as JSON in one column that trainers ignore, so nothing is lost.
    Audio paths are absolute, because trainers start relative ones at their own folder; audio bytes are written to
    files beside (`NAME-audio/`), named by content.
    UndersongError: no answer, neither audio nor text, the placeholder itself among the words, or what a form cannot
    say (Kimi-Audio's has no system text).
    """
    path = Path(path)
    folder = path.parent / f"{path.name.split('.')[0]}-audio"
    read = [_turns(sample, instruction) for sample in samples]  # all are looked at before a file is written
    for sample, turns in zip(samples, read):
        if form == "kimi" and turns.system:
            raise UndersongError(
                f"item {sample.id!r} has a system text, which Kimi-Audio's conversations do not hold; leave the label "
                "`system` out, or write messages."
            )
    lines = []
    for sample, turns in zip(samples, read):
        clip = None
        if sample.audio is not None:
            stored = store_audio(sample.audio, folder) if isinstance(sample.audio, bytes) else sample.audio
            clip = str(Path.cwd() / stored)
        row = {**CHATS[form](turns, clip), "id": sample.id, OWN: _own(sample, instruction)}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines).encode())


def write_messages(samples: Sequence[Sample], path: str | Path, instruction: str = "") -> None:
    """`write_chats` as LLaMA-Factory and ms-swift take it: `messages`, `audios` and `id`."""
    write_chats(samples, path, "messages", instruction)


def _messages(turns: Turns, clip: str | None) -> dict[str, Any]:
    said = [("system", turns.system), ("user", _content(turns, clip)), ("assistant", turns.answer)]
    messages = [{"role": role, "content": text} for role, text in said if text]
    return {"messages": messages, "audios": [] if clip is None else [clip]}


def _sharegpt(turns: Turns, clip: str | None) -> dict[str, Any]:
    said = [("system", turns.system), ("human", _content(turns, clip)), ("gpt", turns.answer)]
    conversations = [{"from": role, "value": text} for role, text in said if text]
    return {"conversations": conversations, "audios": [] if clip is None else [clip]}


def _kimi(turns: Turns, clip: str | None) -> dict[str, Any]:
    said = [("user", "text", turns.asked), ("user", "audio", clip), ("assistant", "text", turns.answer)]
    conversation = [{"role": role, "message_type": kind, "content": what} for role, kind, what in said if what]
    return {"task_type": "understanding", "conversation": conversation}


CHATS: dict[str, Callable[[Turns, str | None], dict[str, Any]]] = {
    "messages": _messages,
    "sharegpt": _sharegpt,
    "kimi": _kimi,
}


def _content(turns: Turns, clip: str | None) -> str:
    return "\n".join(part for part in (PLACEHOLDER if clip is not None else "", turns.asked) if part)


def _turns(sample: Sample, instruction: str) -> Turns:
    labels, spoken = dict(sample.labels), sample.audio is not None
    typed, system = labels.get("instruction"), labels.get("system")
    asked = (typed if typed is not None else instruction) if spoken else sample.text
    unanswered = not (sample.answer or "").strip()
    if unanswered or not (spoken or (asked or "").strip()):
        lacks = "answer to train on" if unanswered else "audio and no text"
        raise UndersongError(f"item {sample.id!r} has no {lacks}; leave it out or fill it in.")
    if any(PLACEHOLDER in (text or "") for text in (asked, sample.answer, system)):
        raise UndersongError(f"item {sample.id!r} holds the placeholder {PLACEHOLDER} as a word; change its text.")
    return Turns(system, asked, sample.answer or "")


def _own(sample: Sample, instruction: str) -> str:
    """Everything that the conversation does not say, as a string: one type in every row."""
    typed = dict(sample.labels).get("instruction")
    row = {name: value for name, value in row_of(sample, Path("/nowhere")).items() if name not in ("id", "audio")}
    # What every item was asked alike is the export's, not the sample's.
    kept = {name: value for name, value in {**row, "instruction": typed}.items() if value not in (None, [])}
    if sample.audio is not None and typed is None and instruction:
        kept["instruction"] = None
    return json.dumps(kept, ensure_ascii=False, allow_nan=False)
