"""docs/how-to/inspect.md: what it says can be typed, and what it prints."""

from __future__ import annotations

import re
from inspect import signature
from pathlib import Path

import pytest
from pages import commands, page, run

pytest.importorskip("inspect_ai", reason="the extra `inspect` is not installed")

from undersong.research.inspect.provider import BATCH_SIZE, MODEL_ARGUMENTS
from undersong.research.inspect.samples import inspect_samples
from undersong.research.inspect.tasks import jsr, over_refusal
from undersong.types import Prompt, Sample

PAGE = page("inspect")


@pytest.mark.slow
def test_its_first_command_finds_what_it_says(tmp_path: Path) -> None:
    said = run(commands(PAGE)[:1], tmp_path)
    found = {name: float(value) for name, value in re.findall(r"^(\w+) +(\d\.\d{3}|\d+\.000)\s*$", said, re.M)}
    rate, low, high, n, clusters = re.search(
        r"a JSR of (\S+) % \[(\S+), (\S+)\] over (\d+) prompts in (\d+) clusters", PAGE
    ).groups()  # type: ignore[union-attr]
    assert [round(100 * found[key], 1) for key in ("jsr", "low", "high")] == [float(rate), float(low), float(high)]
    assert (found["n"], found["clusters"]) == (int(n), int(clusters))


def test_its_names_exist() -> None:
    listed = PAGE.partition("Model\narguments")[2].partition("\n\n")[0]
    assert set(MODEL_ARGUMENTS) <= set(re.findall(r"`(\w+)`", listed))
    assert f"`batch` ({BATCH_SIZE})" in PAGE
    table = re.findall(r"^\| (`.*?) \|", PAGE, re.M)
    named = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert named == set(signature(jsr).parameters) == set(signature(over_refusal).parameters)
    (sample,) = inspect_samples([Prompt(Sample("a", text="hello"), "harm", True, "text", "plain")])
    metadata = PAGE.partition("Each sample carries")[2].partition("in its metadata")[0]
    assert set(re.findall(r"`(\w+)`", metadata)) == set(sample.metadata or {})
