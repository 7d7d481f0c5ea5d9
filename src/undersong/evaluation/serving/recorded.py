"""Replies that were recorded before, as a model: what some other program asked can be judged and counted here.

A `replies.parquet` as `evaluate` writes it (or the folder it is in), or JSON lines with `prompt_id` and `reply`, and
where known `modality`, `system`, `set`, `tokens`, `finish` and `error`.  Knows files; asks nobody, loads no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from undersong.evaluation.replies import COLUMNS
from undersong.evaluation.serving.answers import well_formed
from undersong.types import Prompt, Reply, UndersongError

PREFIX = "recorded:"
TABLE = "replies.parquet"
KEY = ("prompt_id", "modality", "system")
FINISHES = ("stop", "length", "error")
WORDS = {int: "whole number", str: "text"}


@dataclass
class RecordedModel:
    """What `generate` of the protocol AudioLM needs, from a file."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)  # what an artefact notes of the model: nothing is known

    @property
    def name(self) -> str:
        """By the file's or folder's name alone: where it lies is no matter of the artefact's."""
        return f"{PREFIX}{self.path.name}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._bytes).hexdigest()

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """The recorded reply to each prompt, in order, whatever limit it was made under.

        A prompt's reply has its id, modality and system name; what a reply leaves out fits all.  The set is the
        prompt's.  Errors: a prompt with no reply, or with several.
        """
        return [self._reply(prompt) for prompt in prompts]

    def _reply(self, prompt: Prompt) -> Reply:
        one, asked = prompt.sample.id, {"modality": prompt.modality, "system": prompt.system}
        rows = self._rows.get(one, [])
        fitting = [row for row in rows if all(row.get(name) in (None, value) for name, value in asked.items())]
        if len(fitting) != 1:
            found = f"{len(fitting)} replies" if fitting else "no reply"
            raise UndersongError(
                f"{self.path} holds {found} to prompt {one} ({prompt.modality}, system {prompt.system}); give one for "
                "every prompt that is asked."
            )
        row = fitting[0]
        return Reply(
            one, prompt.set, prompt.modality, prompt.system, row["reply"], row["tokens"], row["finish"], row["error"]
        )

    @cached_property
    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """By prompt id."""
        rows: dict[str, list[dict[str, Any]]] = {}
        seen: dict[tuple[Any, ...], str] = {}
        for place, given in self._given():
            row = self._checked(place, given)
            key = tuple(row.get(name) for name in KEY)
            if key in seen:
                raise UndersongError(
                    f"{self.path}: {place} answers prompt {row['prompt_id']} as {seen[key]} does; keep one of them."
                )
            seen[key] = place
            rows.setdefault(row["prompt_id"], []).append(row)
        return rows

    def _given(self) -> Iterator[tuple[str, Any]]:
        """(where, row) as they stand."""
        if self._bytes.startswith(b"PAR1"):
            import pyarrow as pa
            import pyarrow.parquet as pq

            try:
                # Without threads: those of `read_table` may outlive a short program, which then aborts (apache/arrow
                # issue 34314).
                table = pq.ParquetFile(pa.BufferReader(self._bytes)).read(use_threads=False).to_pylist()
            except (pa.ArrowException, OSError) as error:
                raise UndersongError(f"{self.path} is a damaged parquet file; write it again.") from error
            yield from ((f"row {i}", row) for i, row in enumerate(table, 1))
            return
        for i, line in enumerate(self._bytes.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if line.strip():
                try:
                    yield f"line {i}", json.loads(line)
                except (ValueError, RecursionError):  # whose text repeats a reply
                    raise UndersongError(f"{self.path}: line {i} is no JSON; give one object a line.") from None

    def _checked(self, place: str, row: Any) -> dict[str, Any]:
        """A row with its defaults.  An unknown column is refused: a misspelt one would fit every prompt."""
        if not isinstance(row, dict):
            raise UndersongError(f"{self.path}: {place} is no object; give one with prompt_id and reply.")
        row = {name: value for name, value in row.items() if value is not None}
        if unknown := sorted(set(row) - set(COLUMNS)):
            raise UndersongError(f"{self.path}: {place} has a column {unknown[0]!r}; known are {', '.join(COLUMNS)}.")
        row = {"tokens": 0, "error": None, "finish": "error" if "error" in row else "stop", **row}
        if row["finish"] == "error":
            row.setdefault("reply", "")
        for name in COLUMNS:
            if name in ("prompt_id", "reply") and name not in row:
                raise UndersongError(f"{self.path}: {place} has no {name}; give it.")
            kind = int if name == "tokens" else str
            if not isinstance(row.get(name), (kind, type(None))) or isinstance(row.get(name), bool):
                raise UndersongError(f"{self.path}: {name} of {place} is no {WORDS[kind]}; mend it.")
        if row["finish"] not in FINISHES:
            raise UndersongError(f"{self.path}: finish of {place} is none of {', '.join(FINISHES)}; mend it.")
        return row | {"reply": well_formed(row["reply"])}

    @cached_property
    def _bytes(self) -> bytes:
        file = self.path / TABLE if self.path.is_dir() else self.path
        try:
            return file.read_bytes()
        except OSError as error:
            raise UndersongError(
                f"The recorded replies {file} cannot be read ({error.strerror}); check the path."
            ) from error


def recorded_model(ref: str) -> RecordedModel:
    """The replies at `[recorded:]PATH`: a file, or a folder that `evaluate` wrote."""
    path = ref.removeprefix(PREFIX)
    if not path:
        raise UndersongError(f"{PREFIX} names no file; say {PREFIX}PATH.")
    return RecordedModel(Path(path))
