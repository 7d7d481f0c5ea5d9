"""Journal of a served model's answers: when a run that gave up is repeated, it asks only for the missing ones."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from undersong.evaluation.partial_replies import read_whole_lines
from undersong.evaluation.serving.client import ChatClient
from undersong.evaluation.serving.server_reply import ServerReply


class ReplyJournal:
    """Answers in a file of JSON lines that only its owner can read, by the content of their requests.

    Failed requests are not kept: the next run asks again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._replies = dict(read_whole_lines(path, _read_reply))

    def __len__(self) -> int:
        return len(self._replies)

    def find(self, request: Any) -> ServerReply | None:
        """Kept answer to a JSON-able request, or None."""
        return self._replies.get(_request_key(request))

    def add(self, request: Any, reply: ServerReply) -> None:
        """Keep an answer. A line that a kill tears is ignored when the journal is read."""
        key = _request_key(request)
        line = json.dumps({"key": key, "text": reply.text, "tokens": reply.tokens, "finish": reply.finish})
        with self._lock:
            self._replies[key] = reply
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(f"\n{line}")


@contextmanager
def keep_answers(model: object, path: Path) -> Iterator[bool]:
    """Journal the answers that a model or judge gets from a server inside the context; no effect on others.

    Yields whether answers are journaled.

    Args:
        model: A served model, or a judge.
        path: The journal. It is kept on any error, and removed by the caller when the answers are filed.
    """
    client = getattr(model, "client", None)
    if not isinstance(client, ChatClient):
        yield False
        return
    client.journal = ReplyJournal(path)
    try:
        yield True
    finally:
        client.journal = None


def _request_key(request: Any) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()


def _read_reply(row: Any) -> tuple[str, ServerReply]:
    return row["key"], ServerReply(row["text"], row["tokens"], row["finish"])
