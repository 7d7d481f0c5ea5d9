"""docs/how-to/corpora.md: its code runs, and says what stands below it."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

from undersong.corpora.registry import load_presets

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "corpora.md").read_text()
BLOCKS = re.findall(r"```python( tts)?\n(.*?)```(?:\n+```text\n(.*?)```)?", PAGE, re.S)


def test_the_code_says_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    ran = 0
    for extra, code, wanted in BLOCKS:
        if extra and importlib.util.find_spec("espeakng_loader") is None:
            continue
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            exec(compile(code, "corpora.md", "exec"), names)
        assert said.getvalue() == wanted, code
        ran += 1
    assert ran >= 3
    assert {path.name for path in tmp_path.iterdir()} >= {"noisy", "noisy.jsonl", "noisy.messages.jsonl", "noisy-hub"}


def test_the_table_has_every_preset() -> None:
    told = set(re.findall(r"`([a-z0-9-]+)`", PAGE.split("| preset |")[1].split("What an unchecked")[0]))
    assert told == set(load_presets())
