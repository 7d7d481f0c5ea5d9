"""Replies of a local model that are kept while it generates, so that an interrupted generation goes on from them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from undersong.encoders.batching import ProgressCallback, start_progress
from undersong.types import ExchangeKey, Prompt, Reply

Item = TypeVar("Item")


class PartialReplies:
    """Replies by batch in a file of JSON lines that only its owner can read.

    A kept batch is taken only as a whole: the batch of a reply can change its last bits, and so a repeated generation
    makes the same batches as an undisturbed one.
    """

    def __init__(self, path: Path, total: int, report: ProgressCallback | None = None) -> None:
        self.path = path
        self._timer = start_progress(total, report)
        self._batches = dict(_read_batches(path))
        self._done = 0

    def find(self, prompts: Sequence[Prompt]) -> list[Reply] | None:
        """Kept replies to exactly this batch of prompts, or None."""
        replies = self._batches.get(tuple(prompt.key for prompt in prompts))
        if replies is not None:
            self._advance(len(replies))
        return replies

    def add(self, replies: Sequence[Reply]) -> None:
        """Keep the replies of a batch. A line that a kill tears is ignored when the file is read."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"\n{json.dumps([asdict(reply) for reply in replies])}")
        self._advance(len(replies))

    def count(self, number: int) -> None:
        """Report how many replies of a batch there are, before it is whole and can be kept."""
        self._timer.update(self._done + number)

    def _advance(self, count: int) -> None:
        self._done += count
        self._timer.update(self._done)


@contextmanager
def keep_replies(model: Any, path: Path, total: int, report: ProgressCallback | None = None) -> Iterator[None]:
    """Keep what a model here, or vLLM, generates inside the context; no effect on other models.

    Args:
        model: A model that replies.
        path: File of the replies. It is kept on any error, and removed by the caller when the replies are filed.
        total: Number of prompts, for the progress.
        report: Receives the progress.
    """
    if not hasattr(model, "reply_keeper"):  # an `AudioModel` or `VllmModel`; their import would bring torch
        yield
        return
    model.reply_keeper = PartialReplies(path, total, report)
    try:
        yield
    finally:
        model.reply_keeper = None


def _read_batches(path: Path) -> Iterator[tuple[tuple[ExchangeKey, ...], list[Reply]]]:
    for replies in read_whole_lines(path, lambda rows: [Reply(**row) for row in rows]):
        yield tuple(reply.key for reply in replies), replies


def read_whole_lines(path: Path, parse: Callable[[Any], Item]) -> Iterator[Item]:
    """Yield the items of a file of JSON lines; lines that are blank, or torn by a kill, are left out.

    Args:
        path: The file; it may be missing.
        parse: Makes an item of a line's content.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return
    for line in lines:
        try:
            item = parse(json.loads(line))
        except (ValueError, TypeError, KeyError):
            continue
        yield item
