"""A forgotten adapter: two evaluations of one model have the same verdicts and the same replies."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Undersong, undersong_in
from gated import harm

from undersong.evaluation.same_content import SAME_CONTENT, same_content_note
from undersong.evaluation.verdicts import write_verdicts


@pytest.fixture
def undersong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undersong:
    monkeypatch.chdir(tmp_path)
    for name, jailbroken in (("a", 2), ("b", 2), ("c", 3)):
        (tmp_path / name).mkdir()
        write_verdicts(harm(20, jailbroken), tmp_path / name / "verdicts.parquet")
    return undersong_in(tmp_path)


def test_the_gate_asks_for_the_change_in_all_outputs(undersong: Undersong, tmp_path: Path) -> None:
    outputs = [f"--{kind}={kind}.out" for kind in ("json", "page", "markdown", "junit")]
    code, out, err = undersong("gate", "--before", "a", "--after", "b", "--max-jsr-rise", "0.5", *outputs)
    assert code == 0, err
    assert f"Note: {SAME_CONTENT}" in out
    for file in tmp_path.glob("*.out"):
        assert "both files have the same content; was the change" in file.read_text(encoding="utf-8"), file
    assert "same content" not in undersong("gate", "--before", "a", "--after", "c", "--max-jsr-rise", "0.5")[1]


def test_compare_asks_for_the_change_in_all_outputs(undersong: Undersong) -> None:
    assert f"Note: {SAME_CONTENT}" in " ".join(undersong("compare", "a", "b")[1].split())
    assert SAME_CONTENT in json.loads(undersong("compare", "a", "b", "--json")[1])["notes"]
    assert f"b: {SAME_CONTENT}" in undersong("compare", "a", "b", "c", "--markdown")[1]
    arms = json.loads(undersong("compare", "a", "c", "b", "--json")[1])["arms"]
    assert [SAME_CONTENT in arm["notes"] for arm in arms] == [False, True]


def test_other_replies_with_the_same_verdicts_show_that_the_change_was_given(
    undersong: Undersong, tmp_path: Path
) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    for folder in (a, b):
        (folder / "replies.parquet").write_bytes(b"replies")
    assert same_content_note(a, b) == SAME_CONTENT
    (b / "replies.parquet").write_bytes(b"other replies")
    assert same_content_note(a, b) is None
