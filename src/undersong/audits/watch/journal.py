"""The results of `watch` on disk: one line of JSON per checkpoint, and the verdicts and replies it was computed from.

    watch.jsonl                     one line per measurement, the base first
    verdicts/CHECKPOINT.parquet     as `undersong gate` and `undersong compare` read them
    replies/CHECKPOINT.parquet      readable by their owner only
    provenance.json                 the hashes of both, which their readers check

A measurement counts once its line is complete, and the line is written last. So a killed watch repeats one measurement.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from undersong.audits.watch.checkpoints import run_of
from undersong.evaluation.generation_settings import WATCH_FILE
from undersong.evaluation.replies import write_replies
from undersong.evaluation.verdicts import read_verdicts, write_verdicts
from undersong.regular_files import check_regular_file
from undersong.store.atomic import report_disk_errors, write_atomic
from undersong.store.provenance import record_files
from undersong.types import Prompt, Reply, UndersongError, Verdict

JOURNAL_FILE = WATCH_FILE
BASE = "base"
KEY_OPTIONS = {  # what results depend on, and the options that set it
    "model": "--model",
    "sets": "--set",
    "size": "--max-prompts",
    "prompt": "--modality, --voice, --system-prompt or --instruction",
    "judge": "--judge or --refusal-text",
    "max_new_tokens": "--max-new-tokens",
    "loading": "--dtype, --attention or --quantize",
}
REQUIRED_KEYS = {"checkpoint": str, "step": int, "look": int, "files": str}


@dataclass(frozen=True)
class Measurement:
    """A measured checkpoint; `values` are the numbers of its line, such as `jsr` and `jsr_low`."""

    name: str
    step: int
    look: int  # in the order of measuring, from 1; 0 is the base
    files: str  # signature of the files that were measured
    values: Mapping[str, float | None]
    verdicts: Sequence[Verdict]


def check_journal(folder: Path, key: Mapping[str, object]) -> None:
    """Check, without the folder's lock, that it holds no measurements with another key. Changes nothing.

    Raises:
        UndersongError: It holds some, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UndersongError(f"{folder} is a file; give a folder for --out.")
    file = folder / JOURNAL_FILE
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict):
            return  # `Journal` tells of a damaged line, and repairs an unfinished one
        _check_key(folder, entry, json.loads(json.dumps(key)), number)


def _check_key(folder: Path, entry: Mapping[str, object], key: Mapping[str, object], number: int) -> None:
    if (recorded := entry.get("key", key)) == key:  # the base's line has it
        return
    known = recorded if isinstance(recorded, dict) else {}
    changed = [
        f"{name} ({KEY_OPTIONS[name]})" if name in KEY_OPTIONS else name for name in key if known.get(name) != key[name]
    ]
    raise UndersongError(
        f"{folder} holds measurements with another {' and '.join(changed) or 'version'} (line {number} of "
        f"{JOURNAL_FILE}); name another folder with --out, or remove this one."
    )


class Journal:
    """Measurements in a results folder.

    Args:
        folder: The results folder; it is made at the first measurement.
        key: What results depend on besides the checkpoint.

    Raises:
        UndersongError: The folder holds measurements of another base, set, judge or setting, or a damaged line.
    """

    def __init__(self, folder: Path, key: Mapping[str, object]) -> None:
        self.folder, self.key = folder, json.loads(json.dumps(key))
        self.file = folder / JOURNAL_FILE
        self.measurements: dict[str, Measurement] = {}
        self._looks: dict[str, int] = {}  # by run, those at checkpoints that were measured again included
        self.lost: list[str] = []  # measured, but their verdicts cannot be read any more
        for number, entry in enumerate(self._read_entries(), start=1):
            self._add_entry(entry, number)

    def _read_entries(self) -> list[dict[str, object]]:
        if not self.file.exists():
            return []
        check_regular_file(self.file)
        content = self.file.read_bytes()
        complete, separator, rest = content.rpartition(b"\n")
        if rest:  # a writer was killed in the middle of its last line
            write_atomic(self.file, complete + separator)
        entries = []
        for number, line in enumerate(complete.split(b"\n") if complete else [], start=1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or not all(isinstance(entry.get(k), t) for k, t in REQUIRED_KEYS.items()):
                raise UndersongError(
                    f"Line {number} of {self.file} is no measurement; remove the line, and it is measured again."
                )
            entries.append(entry)
        return entries

    def _add_entry(self, entry: Mapping[str, object], number: int) -> None:
        _check_key(self.folder, entry, self.key, number)
        name, step, look, files = entry["checkpoint"], entry["step"], entry["look"], entry["files"]
        assert isinstance(name, str)
        assert isinstance(step, int)
        assert isinstance(look, int)
        assert isinstance(files, str)
        self._count_look(name, look)
        numbers = {key: value for key, value in entry.items() if isinstance(value, int | float)}
        values = {key: value for key, value in numbers.items() if key not in REQUIRED_KEYS}
        try:
            verdicts = read_verdicts(self.verdict_file(name))
        except UndersongError:
            self.lost.append(name)
            return
        self.measurements[name] = Measurement(name, step, look, files, values, verdicts)

    def _count_look(self, name: str, look: int) -> None:
        self._looks[run_of(name)] = max(self._looks.get(run_of(name), 0), look)

    def next_look(self, name: str) -> int:
        """Number of the next look at a checkpoint; every run is a training of its own, and is counted for itself."""
        return self._looks.get(run_of(name), 0) + 1

    def of_run(self, run: str) -> list[Measurement]:
        """Measurements of one run in the order of their steps, without the base."""
        measured = [one for one in self.measurements.values() if one.look and run_of(one.name) == run]
        return sorted(measured, key=lambda measurement: measurement.step)

    def verdict_file(self, name: str) -> Path:
        """File with the verdicts of a checkpoint."""
        return self.folder / "verdicts" / f"{name}.parquet"

    def write(
        self, measurement: Measurement, replies: Sequence[Reply], prompts: Sequence[Prompt], notes: Mapping[str, object]
    ) -> None:
        """Write replies and verdicts, and then the line that makes them count."""
        verdict_file = self.verdict_file(measurement.name)
        reply_file = self.folder / "replies" / f"{measurement.name}.parquet"
        with report_disk_errors(self.folder):
            for file in (verdict_file, reply_file):
                file.parent.mkdir(parents=True, exist_ok=True)
            write_replies(replies, reply_file, prompts)
            write_verdicts(measurement.verdicts, verdict_file)
            record_files(self.folder, "watch", (verdict_file, reply_file))
            entry = {
                "checkpoint": measurement.name,
                "step": measurement.step,
                "look": measurement.look,
                **measurement.values,
                **notes,
                "files": measurement.files,
            }
            if measurement.name == BASE:
                entry["key"] = self.key
            with self.file.open("ab") as stream:
                stream.write(json.dumps(entry, allow_nan=False).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
        self._count_look(measurement.name, measurement.look)
        self.measurements[measurement.name] = measurement
