"""Recorded replies (Parquet or JSON lines) as a black-box model, so that replies from other programs can be judged."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from undersong.corpora.parquet_size import check_decoded_size
from undersong.evaluation.replies import COLUMNS
from undersong.evaluation.serving.server_reply import replace_lone_surrogates
from undersong.regular_files import check_regular_file
from undersong.store.parquet import parquet_file
from undersong.types import FINISH_REASONS, Prompt, Reply, UndersongError

RECORDED_PREFIX = "recorded:"
REPLY_TABLE = "replies.parquet"
REPLY_KEY = ("prompt_id", "modality", "system")
TYPE_NAMES = {int: "whole number", str: "string"}


@dataclass
class RecordedModel:
    """Recorded replies as a black-box model."""

    path: Path
    facts: dict[str, Any] = field(default_factory=dict)  # model facts for artifacts; none are known

    @property
    def name(self) -> str:
        """`recorded:NAME` with the name of the file or folder; artifacts do not depend on its location."""
        return f"{RECORDED_PREFIX}{self.path.name}"

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return hashlib.sha256(self._bytes).hexdigest()

    def generate(self, prompts: Sequence[Prompt], limit: int) -> list[Reply]:
        """Recorded reply to each prompt, in order, whatever token limit it was made with.

        A reply fits a prompt if its id, modality and system name are equal or missing. The prompt's set is used.

        Raises:
            UndersongError: A prompt has no reply, or several.
        """
        return [self._reply(prompt) for prompt in prompts]

    def _reply(self, prompt: Prompt) -> Reply:
        prompt_id, conditions = prompt.sample.id, {"modality": prompt.modality, "system": prompt.system}
        rows = self._rows.get(prompt_id, [])
        matching_rows = [
            row for row in rows if all(row.get(name) in (None, value) for name, value in conditions.items())
        ]
        if len(matching_rows) != 1:
            match_count = f"{len(matching_rows)} replies" if matching_rows else "no reply"
            raise UndersongError(
                f"{self.path} holds {match_count} to prompt {prompt_id} ({prompt.modality}, system {prompt.system}); "
                "give one for every prompt."
            )
        row = matching_rows[0]
        return Reply(
            prompt_id,
            prompt.set,
            prompt.modality,
            prompt.system,
            row["reply"],
            row["tokens"],
            row["finish"],
            row["error"],
        )

    @cached_property
    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """Valid rows by prompt id."""
        rows: dict[str, list[dict[str, Any]]] = {}
        location_by_key: dict[tuple[Any, ...], str] = {}
        for location, raw_row in self._raw_rows():
            row = self._validated_row(location, raw_row)
            key = tuple(row.get(name) for name in REPLY_KEY)
            if key in location_by_key:
                raise UndersongError(
                    f"{self.path}: {location} answers prompt {row['prompt_id']} as {location_by_key[key]} does; "
                    "keep one of them."
                )
            location_by_key[key] = location
            rows.setdefault(row["prompt_id"], []).append(row)
        return rows

    def _raw_rows(self) -> Iterator[tuple[str, Any]]:
        """Yield the location and content of each row."""
        if self._bytes.startswith(b"PAR1"):
            import pyarrow as pa

            try:
                check_decoded_size(self.path, self._bytes)
                # Without threads: threads of `read_table` may outlive a short program, which then aborts (apache/arrow
                # issue 34314).
                table = parquet_file(pa.BufferReader(self._bytes)).read(use_threads=False).to_pylist()
            except (pa.ArrowException, OSError, ValueError) as error:
                raise UndersongError(f"{self.path} is a damaged parquet file; write it again.") from error
            yield from ((f"row {i}", row) for i, row in enumerate(table, 1))
            return
        for i, line in enumerate(self._bytes.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
            if line.strip():
                try:
                    yield f"line {i}", json.loads(line)
                except (ValueError, RecursionError):  # its text repeats a reply
                    raise UndersongError(f"{self.path}: line {i} is not JSON; write one object per line.") from None

    def _validated_row(self, location: str, row: Any) -> dict[str, Any]:
        """Row with its defaults. An unknown column is an error, because a misspelled one would fit every prompt."""
        if not isinstance(row, dict):
            raise UndersongError(f"{self.path}: {location} is not an object; write one with prompt_id and reply.")
        row = {name: value for name, value in row.items() if value is not None}
        if unknown := sorted(set(row) - set(COLUMNS)):
            raise UndersongError(
                f"{self.path}: {location} has the unknown column {unknown[0]!r}; use {', '.join(COLUMNS)}."
            )
        row = {"tokens": 0, "error": None, "finish": "error" if "error" in row else "stop", **row}
        if row["finish"] == "error":
            row.setdefault("reply", "")
        for name in COLUMNS:
            if name in ("prompt_id", "reply") and name not in row:
                raise UndersongError(f"{self.path}: {location} has no {name}; add it.")
            column_type = int if name == "tokens" else str
            if not isinstance(row.get(name), (column_type, type(None))) or isinstance(row.get(name), bool):
                raise UndersongError(f"{self.path}: {name} of {location} is not a {TYPE_NAMES[column_type]}; fix it.")
        if row["finish"] not in FINISH_REASONS:
            raise UndersongError(
                f"{self.path}: finish of {location} is not one of {', '.join(FINISH_REASONS)}; fix it."
            )
        return row | {"reply": replace_lone_surrogates(row["reply"])}

    @cached_property
    def _bytes(self) -> bytes:
        file = self.path / REPLY_TABLE if self.path.is_dir() else self.path
        if file.exists():
            check_regular_file(file)
        try:
            return file.read_bytes()
        except OSError as error:
            raise UndersongError(
                f"The recorded replies {file} cannot be read ({error.strerror}); check the path."
            ) from error


def recorded_model(ref: str) -> RecordedModel:
    """Replies at `[recorded:]PATH`: a file, or a folder that `evaluate` wrote.

    Raises:
        UndersongError: The path is empty.
    """
    path = ref.removeprefix(RECORDED_PREFIX)
    if not path:
        raise UndersongError(f"{RECORDED_PREFIX} names no file; write {RECORDED_PREFIX}PATH.")
    return RecordedModel(Path(path))
