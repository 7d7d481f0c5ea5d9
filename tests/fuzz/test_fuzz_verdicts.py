"""Damaged bytes of `verdicts.parquet` in a folder of results: each is refused, or has the content that was written.

Unlike the other fuzz tests it reads in this process, so that it is fast enough for every run.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from undersong.evaluation.verdicts import read_verdicts, write_verdicts
from undersong.stages.output_folder import write_provenance
from undersong.types import UndersongError, Verdict

CASES = 60
VERDICTS = [
    Verdict(f"q{i}", "harm", True, f"c{i // 2}", "text", "plain", "exact", word, i / 7, finish="stop")
    for i, word in enumerate(("refusal", "jailbreak", "other", "error", "unparsed") * 8)
]


def damaged(content: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(content))
    if rng.random() < 0.5:
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    length = min(rng.choice((1, 8, 64)), len(content) - place)
    return content[:place] + bytes(length) + content[place + length :]


def changed_cases(file: Path) -> list[int]:
    """Numbers of the cases whose content was read, and is not what was written."""
    whole, changed = file.read_bytes(), []
    for number in range(CASES):
        file.write_bytes(damaged(whole, random.Random(f"verdicts {number}")))
        try:
            if read_verdicts(file) != VERDICTS:
                changed.append(number)
        except UndersongError:
            pass
    return changed


@pytest.mark.parametrize("is_recorded", [True, False])
def test_no_changed_verdict_is_read(is_recorded: bool, tmp_path: Path) -> None:
    """Without the folder's record, page checksums cover the values, but not the headers of pages and file."""
    write_verdicts(VERDICTS, file := tmp_path / "verdicts.parquet")
    if is_recorded:
        write_provenance(tmp_path, "judge", {}, {}, {})
    changed = changed_cases(file)
    assert not changed if is_recorded else len(changed) <= 1
