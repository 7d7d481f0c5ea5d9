"""A kept set as the conversations that trainers read: one question and its answer a line, in one of three spellings.

Knows layouts; does not decode audio.  What `chats.py` reads back is the same samples, whichever spelling.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from undersong.corpora.chat_formats import METADATA_COLUMN, PLACEHOLDER
from undersong.corpora.hf_hub import store_audio
from undersong.corpora.rows import row_from_sample
from undersong.store import write_atomic
from undersong.types import Sample, UndersongError


@dataclass(frozen=True, slots=True)
class ChatExample:
    """One question and answer.  `asked`: what is typed, beside the clip where there is one."""

    system: str | None
    user_text: str | None
    answer: str


def write_chats(
    samples: Sequence[Sample], path: str | Path, chat_format: str = "messages", instruction: str = ""
) -> None:
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
    examples = [_chat_example(sample, instruction) for sample in samples]  # all are looked at before a file is written
    for sample, example in zip(samples, examples):
        if chat_format == "kimi" and example.system:
            raise UndersongError(
                f"item {sample.id!r} has a system text, which Kimi-Audio's conversations do not hold; leave the label "
                "`system` out, or write messages."
            )
    lines = []
    for sample, example in zip(samples, examples):
        clip = None
        if sample.audio is not None:
            audio_path = store_audio(sample.audio, folder) if isinstance(sample.audio, bytes) else sample.audio
            clip = str(Path.cwd() / audio_path)
        row = {
            **CHAT_ROW_BUILDERS[chat_format](example, clip),
            "id": sample.id,
            METADATA_COLUMN: _metadata_json(sample, instruction),
        }
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines).encode())


def write_messages(samples: Sequence[Sample], path: str | Path, instruction: str = "") -> None:
    """`write_chats` as LLaMA-Factory and ms-swift take it: `messages`, `audios` and `id`."""
    write_chats(samples, path, "messages", instruction)


def _messages_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_texts = [("system", example.system), ("user", _user_content(example, clip)), ("assistant", example.answer)]
    messages = [{"role": role, "content": text} for role, text in role_texts if text]
    return {"messages": messages, "audios": [] if clip is None else [clip]}


def _sharegpt_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_texts = [("system", example.system), ("human", _user_content(example, clip)), ("gpt", example.answer)]
    conversations = [{"from": role, "value": text} for role, text in role_texts if text]
    return {"conversations": conversations, "audios": [] if clip is None else [clip]}


def _kimi_row(example: ChatExample, clip: str | None) -> dict[str, Any]:
    role_parts = [("user", "text", example.user_text), ("user", "audio", clip), ("assistant", "text", example.answer)]
    conversation = [
        {"role": role, "message_type": kind, "content": content} for role, kind, content in role_parts if content
    ]
    return {"task_type": "understanding", "conversation": conversation}


CHAT_ROW_BUILDERS: dict[str, Callable[[ChatExample, str | None], dict[str, Any]]] = {
    "messages": _messages_row,
    "sharegpt": _sharegpt_row,
    "kimi": _kimi_row,
}


def _user_content(example: ChatExample, clip: str | None) -> str:
    return "\n".join(part for part in (PLACEHOLDER if clip is not None else "", example.user_text) if part)


def _chat_example(sample: Sample, instruction: str) -> ChatExample:
    labels, spoken = dict(sample.labels), sample.audio is not None
    sample_instruction, system = labels.get("instruction"), labels.get("system")
    user_text = (sample_instruction if sample_instruction is not None else instruction) if spoken else sample.text
    missing_answer = not (sample.answer or "").strip()
    if missing_answer or not (spoken or (user_text or "").strip()):
        missing_part = "answer to train on" if missing_answer else "audio and no text"
        raise UndersongError(f"item {sample.id!r} has no {missing_part}; leave it out or fill it in.")
    if any(PLACEHOLDER in (text or "") for text in (user_text, sample.answer, system)):
        raise UndersongError(f"item {sample.id!r} holds the placeholder {PLACEHOLDER} as a word; change its text.")
    return ChatExample(system, user_text, sample.answer or "")


def _metadata_json(sample: Sample, instruction: str) -> str:
    """Everything that the conversation does not say, as a string: one type in every row."""
    sample_instruction = dict(sample.labels).get("instruction")
    row = {
        name: value for name, value in row_from_sample(sample, Path("/nowhere")).items() if name not in ("id", "audio")
    }
    # What every item was asked alike is the export's, not the sample's.
    fields = {
        name: value for name, value in {**row, "instruction": sample_instruction}.items() if value not in (None, [])
    }
    if sample.audio is not None and sample_instruction is None and instruction:
        fields["instruction"] = None
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)
